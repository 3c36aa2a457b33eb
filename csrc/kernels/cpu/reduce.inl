// Sums over columns, the search for non-finite values, and the probe of the FMA peak.

// Vectors of columns that are summed side by side: rows that lie pages apart cost a walk of the page
// table each, and one chain of sums would wait for itself.
static constexpr int kSumVectors = 4;

// out (Vectors) = the sums of as many vectors of columns; `lanes` of the last one, which then stands alone.
template <class T, int Vectors>
FBP_FN static void sum_columns(const T* x, index_t x_row, index_t rows, int lanes, T* out) {
  using V = Vec<T>;
  const index_t chunk = k_chunk(rows);
  V total[Vectors];
  for (V& t : total) t = V(T(0));
  for (index_t begin = 0; begin < rows; begin += chunk) {
    const index_t end = rows - begin < chunk ? rows : begin + chunk;
    V sum[Vectors];
    for (V& s : sum) s = V(T(0));
    for (index_t i = begin; i < end; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v)
        sum[v] = sum[v] + load<V>(x + i * x_row + v * V::lanes, lanes);
    for (int v = 0; v < Vectors; ++v) total[v] = begin == 0 ? sum[v] : total[v] + sum[v];
  }
  for (int v = 0; v < Vectors; ++v) store(total[v], out + v * V::lanes, lanes);
}

// out[j] = sum over i of x[i, j]: the order of gemm's sum over k, chunk by chunk (a row of ones in its
// A has the same bits).
template <class T>
static void column_sum(const T* x, index_t x_row, index_t rows, index_t cols, T* out, Share share) {
  constexpr index_t lanes = Vec<T>::lanes, most = kSumVectors * lanes;
  const Range part = split(cols, lanes, share);
  index_t j = part.begin;
  for (; j + most <= part.end; j += most)
    sum_columns<T, kSumVectors>(x + j, x_row, rows, int(lanes), out + j);
  for (; j + lanes <= part.end; j += lanes)
    sum_columns<T, 1>(x + j, x_row, rows, int(lanes), out + j);
  if (j < part.end) sum_columns<T, 1>(x + j, x_row, rows, int(part.end - j), out + j);
}

// What the chunks of a GEMM's sum over k come to, where each is in a row of x.
template <class T>
static void add_rows(const T* x, index_t x_row, index_t rows, index_t cols, T* total, bool onward) {
  using V = Vec<T>;
  for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
    V sum = load<V>(onward ? total + j : x + j, lanes);
    for (index_t i = onward ? 0 : 1; i < rows; ++i) sum = sum + load<V>(x + i * x_row + j, lanes);
    store(sum, total + j, lanes);
  });
}

template <class T> static index_t first_non_finite(const T* x, index_t n) {
  using V = Vec<T>;
  // x - x is 0 for a finite x and NaN otherwise.
  const V zero(T(0));
  index_t j = 0;
  for (; j + V::lanes <= n; j += V::lanes) {
    const V v = V::load(x + j);
    if (!all(v - v == zero)) break;
  }
  for (; j < n; ++j)
    if (!(x[j] - x[j] == T(0))) return j;
  return -1;
}

// As many independent chains as the GEMM tile has accumulators, at most 12: enough to hide the
// latency of two FMA ports.
template <class T> static double fma_probe(double flop) {
  using V = Vec<T>;
  constexpr int tile = kFullTileRows * kTileVectors;
  constexpr int chains = tile < 12 ? tile : 12;
  V sum[chains];
  for (int c = 0; c < chains; ++c) sum[c] = V(T(1e-3) * T(c + 1));
  const V x(T(0.999)), y(T(1e-3));
  const double per_turn = 2.0 * chains * V::lanes;
  const index_t turns = index_t(flop / per_turn) + 1;
  for (index_t i = 0; i < turns; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < chains; ++c) sum[c] = fma(sum[c], x, y);
  }
  V total(T(0));
  for (int c = 0; c < chains; ++c) total = total + sum[c];
  // The sums decide the result, so that no chain is removed; they are far below one operation.
  return per_turn * double(turns) + (reduce_add(total) > T(1e30) ? 1.0 : 0.0);
}
