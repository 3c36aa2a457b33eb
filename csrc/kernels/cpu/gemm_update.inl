// The gradient of a kernel with the optimizer's update of every tile: the update of one tile goes on among the sums of
// the next.
//
// An update waits for the unit that divides and takes roots, 16 clocks for a vector of Adam, in 4 of which the FMA
// units have nothing to do, and for memory where there are many parameters. The values are those of sums and
// updates in turn.

// A tile of parameters, kNr columns wide, and its gradient, whose rows lie kNr apart.
template <class T> struct ParameterTile {
  int rows = 0;
  const T* gradient = nullptr;
  T* w = nullptr;
  T* slot[2] = {nullptr, nullptr};
  index_t row = 0;

  template <class Optimizer> FBP_FN void next_row() {
    gradient += kNr<T>;
    w += row;
#pragma GCC unroll 2
    for (int k = 0; k < Optimizer::slots; ++k) slot[k] += row;
  }
};

template <class Optimizer, class T>
FBP_FN static void ask_for(const ParameterTile<T>& tile, index_t at) {
  __builtin_prefetch(tile.w + at, 1);
#pragma GCC unroll 2
  for (int k = 0; k < Optimizer::slots; ++k) __builtin_prefetch(tile.slot[k] + at, 1);
}

template <class Optimizer, class T>
FBP_FN static void update_row_part(const ParameterTile<T>& tile, index_t at, const T* hyper) {
  update_vector<Optimizer>(tile.w + at, tile.slot, at, Vec<T>::load(tile.gradient + at), hyper,
                           Vec<T>::lanes);
}

// One value of k of a tile's sums.
template <class T, int Rows>
FBP_FN static void add_outer(const T* a, const T* b, Vec<T> (&sum)[Rows][kTileVectors]) {
  using V = Vec<T>;
  V row[kTileVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kTileVectors; ++v) row[v] = V::load(b + v * V::lanes);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const V x(a[i]);
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) sum[i][v] = fma(x, row[v], sum[i][v]);
  }
}

// The sums of `made` (its gradient is args.c) over the first chunk of k, and the update of `waiting`.
template <class T, int Rows, class Optimizer>
static void update_kernel(const MicroArgs<T>& args, ParameterTile<T> waiting, ParameterTile<T> made,
                          const T* hyper, bool far) {
  using V = Vec<T>;
  V sum[Rows][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) sum[i][v] = V(T(0));
  const T *a = args.a, *b = args.b;
  const index_t a_col = args.a_col, b_row = args.b_row;
  index_t k = args.k;
  int rows = waiting.rows;
  for (; rows > 0 && k >= kTileVectors; --rows, k -= kTileVectors) {
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v, a += a_col, b += b_row) {
      if (far) ask_for<Optimizer>(made, v * V::lanes);
      add_outer<T, Rows>(a, b, sum);
      update_row_part<Optimizer>(waiting, v * V::lanes, hyper);
    }
    waiting.template next_row<Optimizer>();
    made.template next_row<Optimizer>();
  }
  const auto add = [&] {
    add_outer<T, Rows>(a, b, sum);
    a += a_col, b += b_row;
  };
  for (; k >= 2; k -= 2) add(), add();
  if (k > 0) add();
  for (; rows > 0; --rows, waiting.template next_row<Optimizer>())
    for (int v = 0; v < kTileVectors; ++v) update_row_part<Optimizer>(waiting, v * V::lanes, hyper);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) sum[i][v].store(args.c + i * kNr<T> + v * V::lanes);
}

template <class T>
using UpdateKernel = void (*)(const MicroArgs<T>&, ParameterTile<T>, ParameterTile<T>, const T*,
                              bool);

// By optimizer and rows. Lower tiles leave too little to do beside an update.
static constexpr int kLeastUpdateRows = kFullTileRows - 2;
template <class T> struct UpdateKernels {
  UpdateKernel<T> get[kOptimizerCount][kFullTileRows];

  template <class Optimizer, int Rows> constexpr void fill(int optimizer) {
    get[optimizer][Rows - 1] = update_kernel<T, Rows, Optimizer>;
    if constexpr (Rows > kLeastUpdateRows) fill<Optimizer, Rows - 1>(optimizer);
  }
  constexpr UpdateKernels() : get{} {
    if constexpr (kUpdatesGoAlong) {
      int optimizer = 0;
#define FBP_FILL(O) fill<O, kFullTileRows>(optimizer++);
      FBP_OPTIMIZERS(FBP_FILL)
#undef FBP_FILL
    }
  }
};
template <class T> static constexpr UpdateKernels<T> kUpdateKernels{};

// Whether the panel's updates are made in this way: the sums' registers leave some for an update.
template <class T>
FBP_FN static bool updates_go_along(const GemmArgs<T>& g, const Panel<T>& panel, Range rows) {
  return kUpdatesGoAlong && g.optimizer >= 0 && g.discard_c && !g.stop && panel.cols == kNr<T> &&
         panel.p == 0 && panel.p_end == g.k && a_by_columns(g) &&
         rows.end - rows.begin >= 2 * kLeastUpdateRows;
}

template <class T>
static void run_updates(const GemmArgs<T>& g, const Panel<T>& panel, Range rows, index_t chunk) {
  const auto& parameters = *static_cast<const UpdateTile<T>*>(g.context);
  const T* hyper = parameters.hyper.value;
  alignas(64) T gradient[2][kFullTileRows * kNr<T>];
  MicroArgs<T> micro{};
  micro.a_row = 1, micro.a_col = panel.a_col, micro.b_row = panel.b_row;
  micro.c_row = kNr<T>;
  // What an update will read is asked for where it is far beyond L2; in L2 that took longer.
  const bool far = 3 * panel.all_rows * g.n * index_t(sizeof(T)) > 4 * kNearBytes;
  ParameterTile<T> waiting;
  index_t tiles = parts_of(rows.end - rows.begin, kFullTileRows);
  for (index_t i = rows.begin, height; i < rows.end; i += height, --tiles) {
    height = parts_of(rows.end - i, tiles);
    const index_t at = i * parameters.row + panel.j;
    micro.c = gradient[tiles & 1];
    ParameterTile<T> made{int(height), micro.c, parameters.w + at, {}, parameters.row};
    for (int s = 0; s < 2; ++s)
      if (parameters.slot[s]) made.slot[s] = parameters.slot[s] + at;
    const auto at_k = [&](index_t p) {
      micro.k = g.k - p < chunk ? g.k - p : chunk;
      micro.a = panel.a + (i - rows.begin) + p * panel.a_col;
      micro.b = panel.b + p * panel.b_row;
    };
    at_k(0);
    kUpdateKernels<T>.get[g.optimizer][height - 1](micro, waiting, made, hyper, far);
    for (index_t p = chunk; p < g.k; p += chunk) {
      at_k(p);
      kMicroKernels<T>.get[1][0][kTileVectors - 1][height - 1](micro);
    }
    waiting = made;
  }
  g.op(g.context, waiting.gradient, kNr<T>, rows.end - waiting.rows, waiting.rows, panel.j, kNr<T>);
}
