// Products with few rows and few columns whose sums are long: C = A B, A by rows and B by columns, so that both lie in
// the order of k.
//
// The chunks of k are independent sums: lane l of a vector takes the chunk l, and the lanes are added in order.

// Rows and columns of C at most: their vectors of 16 values of k, and the sums, stay in L1.
static constexpr index_t kDotsSide = 12;

// Clocks for each k of a product Z (rows, cols) = X Y, roughly: an FMA for each row and vector, four to wait for
// each other; where Y lies by columns its transposition.
template <class T> FBP_FN static index_t thin_cost(index_t rows, index_t cols, bool by_columns) {
  const index_t vectors = (cols + Vec<T>::lanes - 1) / Vec<T>::lanes;
  const index_t products = rows * vectors < 4 ? 4 : rows * vectors;
  return products + (by_columns ? 4 * vectors : 0);
}

// Whether lanes are better filled with chunks than with rows or columns of C.
template <class T> FBP_FN static bool is_dots(const GemmArgs<T>& g) {
  if (g.m > kDotsSide || g.n > kDotsSide || g.k <= 2 * kMaxChunk || g.a_col != 1 || g.b_row != 1)
    return false;
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k);
  const index_t groups = parts_of(parts_of(g.k, chunk), Vec<T>::lanes);
  const index_t by_rows = thin_cost<T>(g.n, g.m, g.m > 1),
                by_columns = thin_cost<T>(g.m, g.n, g.n > 1);
  return groups * chunk * (g.m * g.n + 6 * (g.m + g.n)) * 9 <
         g.k * (by_rows < by_columns ? by_rows : by_columns) * 8;
}

// Vectors of up to `lanes` values of k for `lines` rows of A or columns of B, lanes being chunks: to[q * lines + i].
template <class T>
static void load_chunks(const T* p, index_t line, index_t lines, index_t chunk, index_t chunks,
                        index_t rest, T* to) {
  constexpr index_t lanes = Vec<T>::lanes;
  for (index_t i = 0; i < lines; ++i, p += line, to += lanes) {
    Vec<T> block[lanes];
    load_columns(p, chunk, lanes, rest < lanes ? chunks - 1 : chunks, block);
#pragma GCC unroll 16
    for (int q = 0; q < int(lanes); ++q) block[q].store(to + q * lines * lanes);
    if (rest < lanes)  // the last chunk ends within this block
      for (index_t q = 0; q < rest; ++q)
        to[q * lines * lanes + chunks - 1] = p[(chunks - 1) * chunk + q];
  }
}

// sums (Rows, Columns) += x y, vectors lane by lane, for `lanes` values of k.
template <class T, int Rows, int Columns>
static void add_dots(const T* x, index_t x_line, const T* y, index_t y_line, T* sums, index_t row) {
  using V = Vec<T>;
  constexpr index_t lanes = V::lanes;
  V sum[Rows][Columns];
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) sum[i][j] = V::load(sums + i * row + j * lanes);
  for (index_t q = 0; q < lanes; ++q, x += x_line, y += y_line) {
    V right[Columns];
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) right[j] = V::load(y + j * lanes);
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) {
      const V left = V::load(x + i * lanes);
#pragma GCC unroll 4
      for (int j = 0; j < Columns; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) sum[i][j].store(sums + i * row + j * lanes);
}

template <class T>
using AddDots = void (*)(const T* x, index_t x_line, const T* y, index_t y_line, T* sums,
                         index_t row);
template <class T>
static constexpr AddDots<T> kAddDots[4][4] = {
    {add_dots<T, 1, 1>, add_dots<T, 1, 2>, add_dots<T, 1, 3>, add_dots<T, 1, 4>},
    {add_dots<T, 2, 1>, add_dots<T, 2, 2>, add_dots<T, 2, 3>, add_dots<T, 2, 4>},
    {add_dots<T, 3, 1>, add_dots<T, 3, 2>, add_dots<T, 3, 3>, add_dots<T, 3, 4>},
    {add_dots<T, 4, 1>, add_dots<T, 4, 2>, add_dots<T, 4, 3>, add_dots<T, 4, 4>}};

// c[e] = or += the lanes of sums[e], one after the other.
template <class T>
static void add_lanes(const T* sums, index_t count, index_t chunks, bool first, T* c) {
  using V = Vec<T>;
  constexpr index_t lanes = V::lanes;
  for (index_t e = 0; e < count; e += lanes) {
    const int width = int(count - e < lanes ? count - e : lanes);
    V chunk[lanes];
    load_transposed_n(sums + e * lanes, lanes, int(lanes), width, chunk);
    V total = first ? chunk[0] : V::load_n(c + e, width) + chunk[0];
#pragma GCC unroll 16
    for (int l = 1; l < int(lanes); ++l)
      if (l < chunks) total = total + chunk[l];
    total.store_n(c + e, width);
  }
}

template <class T> static void dots_gemm(const GemmArgs<T>& g, Share share) {
  constexpr index_t lanes = Vec<T>::lanes;
  if (share.id > 0) return;
  alignas(64) T x[kDotsSide * lanes * lanes], y[kDotsSide * lanes * lanes];
  alignas(64) T sums[kDotsSide * kDotsSide * lanes], totals[kDotsSide * kDotsSide];
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k), step = chunk * lanes;
  for (index_t begin = 0; begin < g.k; begin += step) {
    const index_t length = g.k - begin < step ? g.k - begin : step;
    const index_t chunks = parts_of(length, chunk), last = length - (chunks - 1) * chunk;
    for (index_t e = 0; e < g.m * g.n; ++e) {
      Vec<T>(T(0)).store(sums + e * lanes);
      if (begin == 0 && g.bias) sums[e * lanes] = g.bias[e % g.n];
    }
    for (index_t p = 0; p < chunk; p += lanes) {
      const index_t there = last > p ? chunks : chunks - 1;  // chunks that reach this block
      const index_t rest = last > p ? last - p : lanes;
      if (there == 0) break;
      load_chunks(g.a + begin + p, g.a_row, g.m, chunk, there, rest, x);
      load_chunks(g.b + begin + p, g.b_col, g.n, chunk, there, rest, y);
      for (index_t i = 0; i < g.m; i += 4)
        for (index_t j = 0; j < g.n; j += 4)
          kAddDots<T>[g.m - i < 4 ? g.m - i - 1 : 3][g.n - j < 4 ? g.n - j - 1 : 3](
              x + i* lanes, g.m* lanes, y + j* lanes, g.n* lanes, sums + (i* g.n + j)* lanes,
              g.n* lanes);
    }
    if (g.stop && g.stop(g.stop_context)) return;
    add_lanes(sums, g.m * g.n, chunks, begin == 0, totals);
  }
  for (index_t i = 0; i < g.m; ++i)
    for (index_t j = 0; j < g.n; ++j) g.c[i * g.c_row + j] = totals[i * g.n + j];
  if (g.op) g.op(g.context, g.c, g.c_row, 0, g.m, 0, g.n);
}
