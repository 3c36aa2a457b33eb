// Elementwise work on tiles: activations, their derivatives, updates of parameters. One loop,
// walked with many operations.

// Calls body(i, j, lanes) for every vector of a rows x cols tile; lanes < V::lanes in the last of a
// row whose width has a tail. The tails come behind all the rest, and rows of one vector have a loop
// of their own: in narrow tiles the loops cost more than the work.
template <class V, class Body>
FBP_FN static void for_each_vector(index_t rows, index_t cols, Body body) {
  const index_t whole = cols - cols % V::lanes;
  if (whole == V::lanes)
    for (index_t i = 0; i < rows; ++i) body(i, 0, V::lanes);
  else if (whole > 0)
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < whole; j += V::lanes) body(i, j, V::lanes);
  if (whole < cols)
    for (index_t i = 0; i < rows; ++i) body(i, whole, int(cols - whole));
}

// A whole vector where lanes is a literal V::lanes (after inlining), a masked one otherwise.
template <class V> FBP_FN static V load(const typename V::scalar* p, int lanes) {
  return lanes == V::lanes ? V::load(p) : V::load_n(p, lanes);
}
template <class V> FBP_FN static void store(V v, typename V::scalar* p, int lanes) {
  if (lanes == V::lanes)
    v.store(p);
  else
    v.store_n(p, lanes);
}

alignas(64) static constexpr float kLaneIndex32[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                       8, 9, 10, 11, 12, 13, 14, 15};
alignas(64) static constexpr double kLaneIndex64[8] = {0, 1, 2, 3, 4, 5, 6, 7};
FBP_FN static Vec<float> lane_index(float) { return Vec<float>::load(kLaneIndex32); }
FBP_FN static Vec<double> lane_index(double) { return Vec<double>::load(kLaneIndex64); }

// v in its first `lanes` lanes, `fill` in the others.
template <class V> FBP_FN static V keep_lanes(V v, int lanes, typename V::scalar fill) {
  using T = typename V::scalar;
  if (lanes == V::lanes) return v;
  return select(lane_index(T()) < V(T(lanes)), v, V(fill));
}

// Where no lane meets another, kernels work on Item<T>: a whole vector, or, where a vector is no more than an array of
// lanes, one lane, whose values then stay in registers. Each isa_<name>.cpp says which.
static constexpr bool kVectorsAreRegisters = Item<float>::lanes == Vec<float>::lanes;
// How far loops over the vectors of a block are unrolled, for they then have registers.
static constexpr int kBlockUnroll = kVectorsAreRegisters ? 16 : 1;

// f(x), item by item.
template <class T, class Function> FBP_FN static Vec<T> by_items(Vec<T> x, Function f) {
  if constexpr (kVectorsAreRegisters)
    return f(x);
  else
    for (Item<T>& item : x.a) item = f(item);
  return x;
}

// sum += item, which is item j of a row: lane by lane, nothing beyond `lanes`.
template <class T> FBP_FN static void add_item(Vec<T>& sum, index_t j, Item<T> item, int lanes) {
  if constexpr (kVectorsAreRegisters) {
    sum = sum + keep_lanes(item, lanes, T(0));
  } else {
    const int lane = int(j % Vec<T>::lanes);
    sum.a[lane] = sum.a[lane] + item;
  }
}

// out = f(c)
template <class T, class Activation>
static void activation_forward(const void* context, const T* c, index_t c_row, index_t i0,
                               index_t rows, index_t j0, index_t cols) {
  using V = Item<T>;
  const auto& tile = *static_cast<const ActivationTile<T>*>(context);
  T* out = tile.out + i0 * tile.out_row + j0;
  const index_t out_row = tile.out_row;
  const V param(tile.param);
  for_each_vector<V>(rows, cols, [=](index_t i, index_t j, int lanes) {
    store(Activation::forward(load<V>(c + i * c_row + j, lanes), param), out + i * out_row + j,
          lanes);
  });
}

// out = c f'(saved)
template <class T, class Activation>
static void activation_backward(const void* context, const T* c, index_t c_row, index_t i0,
                                index_t rows, index_t j0, index_t cols) {
  using V = Item<T>;
  const auto& tile = *static_cast<const ActivationTile<T>*>(context);
  const T* saved = tile.saved + i0 * tile.saved_row + j0;
  T* out = tile.out + i0 * tile.out_row + j0;
  const index_t saved_row = tile.saved_row, out_row = tile.out_row;
  const V param(tile.param);
  for_each_vector<V>(rows, cols, [=](index_t i, index_t j, int lanes) {
    const V dy = load<V>(c + i * c_row + j, lanes);
    // An activation that saves nothing reads nothing.
    const V kept =
        Activation::saves == Saves::None ? dy : load<V>(saved + i * saved_row + j, lanes);
    store(Activation::backward(kept, dy, param), out + i * out_row + j, lanes);
  });
}

// out = c + saved
template <class T>
static void add_saved(const void* context, const T* c, index_t c_row, index_t i0, index_t rows,
                      index_t j0, index_t cols) {
  using V = Item<T>;
  const auto& tile = *static_cast<const ActivationTile<T>*>(context);
  const T* saved = tile.saved + i0 * tile.saved_row + j0;
  T* out = tile.out + i0 * tile.out_row + j0;
  const index_t saved_row = tile.saved_row, out_row = tile.out_row;
  for_each_vector<V>(rows, cols, [=](index_t i, index_t j, int lanes) {
    store(load<V>(c + i * c_row + j, lanes) + load<V>(saved + i * saved_row + j, lanes),
          out + i * out_row + j, lanes);
  });
}

// A vector of w, and of the slots from `at` on, updated by its gradient.
template <class Optimizer, class V, class T>
FBP_FN static void update_vector(T* w, T* const (&slot)[2], index_t at, V gradient, const T* hyper,
                                 int lanes) {
  V s[2];
#pragma GCC unroll 2
  for (int k = 0; k < Optimizer::slots; ++k) s[k] = load<V>(slot[k] + at, lanes);
  const V updated = Optimizer::update(load<V>(w, lanes), gradient, s, hyper);
#pragma GCC unroll 2
  for (int k = 0; k < Optimizer::slots; ++k) store(s[k], slot[k] + at, lanes);
  store(updated, w, lanes);
}

// w, slots updated by the gradient c
template <class T, class Optimizer>
static void update(const void* context, const T* c, index_t c_row, index_t i0, index_t rows,
                   index_t j0, index_t cols) {
  using V = Item<T>;
  const auto& tile = *static_cast<const UpdateTile<T>*>(context);
  const index_t row = tile.row, offset = i0 * row + j0;
  T* w = tile.w + offset;
  T* slot[2] = {};
  for (int k = 0; k < Optimizer::slots; ++k) slot[k] = tile.slot[k] + offset;
  for_each_vector<V>(rows, cols, [&](index_t i, index_t j, int lanes) {
    const index_t at = i * row + j;
    update_vector<Optimizer>(w + at, slot, at, load<V>(c + i * c_row + j, lanes), tile.hyper.value,
                             lanes);
  });
}

template <class V> struct VectorFunctions {
#define FBP_WRAP(name)                                                                             \
  FBP_FN static V name(V x) { return fastbp::name(x); }
  FBP_VECTOR_FUNCTIONS(FBP_WRAP)
#undef FBP_WRAP
};

template <class T, Item<T> (*function)(Item<T>)>
static void vector_function(const T* x, T* y, index_t n, Share share) {
  const Range part = split(n, 8 * Vec<T>::lanes, share);
  for_each_vector<Item<T>>(1, part.end - part.begin, [=](index_t, index_t j, int lanes) {
    store(function(load<Item<T>>(x + part.begin + j, lanes)), y + part.begin + j, lanes);
  });
}
