// What happens to a gradient between the backward pass and the update (engine/update_rules.h): sums
// of squares, limits, penalties; behind it the limit on columns of weights, and the average of the
// parameters.

// Sum of squares of n values, in lanes and tree; summed in double by blocks of the caller.
template <class T> static double square_sum(const T* x, index_t n) {
  using V = Vec<T>;
  V sum(T(0));
  for_each_vector<V>(1, n, [&](index_t, index_t j, int lanes) {
    const V v = load<V>(x + j, lanes);
    sum = fma(v, v, sum);
  });
  return double(reduce_add(sum));
}

// x = x scale, cut off at +-bound. NaN stays.
template <class T> static void limit(T* x, index_t n, T scale, T bound) {
  using V = Vec<T>;
  const V factor(scale), high(bound), low(-bound);
  for_each_vector<V>(1, n, [&](index_t, index_t j, int lanes) {
    const V v = load<V>(x + j, lanes) * factor;
    store(select(v > high, high, select(v < low, low, v)), x + j, lanes);
  });
}

// Returns the sum of l1 |w| + l2 w^2, and adds its gradient l1 sign(w) + 2 l2 w to g unless that is
// null; sign(0) is 0.
template <class T> static double penalty(const T* w, T* g, index_t n, T l1, T l2) {
  using V = Vec<T>;
  const V zero(T(0)), first(l1), second(l2), slope(l2 + l2);
  V sum(zero);
  for_each_vector<V>(1, n, [&](index_t, index_t j, int lanes) {
    const V v = load<V>(w + j, lanes);
    sum = sum + fma(second * v, v, first * abs(v));
    if (!g) return;
    const V sign = select(v == zero, zero, copysign(first, v));
    store(load<V>(g + j, lanes) + fma(slope, v, sign), g + j, lanes);
  });
  return double(reduce_add(sum));
}

// average = momentum average + (1 - momentum) w
template <class T> static void blend(const T* w, T* average, index_t n, T momentum) {
  using V = Vec<T>;
  const V kept(momentum), taken(T(1) - momentum);
  for_each_vector<V>(1, n, [&](index_t, index_t j, int lanes) {
    store(fma(taken, load<V>(w + j, lanes), kept * load<V>(average + j, lanes)), average + j,
          lanes);
  });
}

// Columns of a matrix whose norm is above the limit are scaled by limit / (norm + 1e-7), as
// torch.renorm does. A column's squares are summed in the order of its rows. NaN stays.
template <class T>
static void limit_columns(T* w, index_t w_row, index_t rows, index_t cols, T limit) {
  using V = Vec<T>;
  const V high(limit), margin(T(1e-7)), one(T(1));
  // So many columns at a time: a row of them is some cache lines side by side.
  constexpr index_t kVectors = 8, kColumns = kVectors * V::lanes;
  for (index_t first = 0; first < cols; first += kColumns) {
    const index_t count = cols - first < kColumns ? cols - first : kColumns;
    T* const block = w + first;
    V factor[kVectors];
    for (V& sum : factor) sum = V(T(0));
    for_each_vector<V>(rows, count, [&](index_t i, index_t j, int lanes) {
      const V v = load<V>(block + i * w_row + j, lanes);
      factor[j / V::lanes] = fma(v, v, factor[j / V::lanes]);
    });
    for (V& f : factor) {
      const V norm = sqrt(f);
      f = select(norm > high, high / (norm + margin), one);
    }
    for_each_vector<V>(rows, count, [&](index_t i, index_t j, int lanes) {
      T* const at = block + i * w_row + j;
      store(load<V>(at, lanes) * factor[j / V::lanes], at, lanes);
    });
  }
}
