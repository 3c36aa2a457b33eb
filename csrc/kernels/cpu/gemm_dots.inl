// Products with few rows and few columns whose sums are long: C = A B, A by rows and B by columns, so that both lie in
// the order of k.
//
// The chunks of k are independent sums: lane l of a vector takes the chunk l, and the lanes are added in order.

// Rows and columns of C at most, and values of k at a time: their vectors and the sums stay in L1.
static constexpr int kDotsSide = 12;
static constexpr int kDotsBlock = 16;

// Clocks for each k of a product Z (rows, cols) = X Y, in eighths, roughly: an FMA for each row and vector, four to
// wait for each other; where Y lies by columns its transposition. Narrow vectors have an FMA for each half, and
// four clocks pass for each of the groups, or chunks, that are summed side by side; to begin and end takes 200.
template <class T>
FBP_FN static index_t thin_cost(index_t rows, index_t cols, bool by_columns, index_t k,
                                index_t chunks) {
  if (!by_columns || !is_narrow<T>(rows, k)) {
    const index_t vectors = parts_of(cols, Vec<T>::lanes), products = rows * vectors;
    return 8 * ((products < 4 ? 4 : products) + (by_columns ? 4 * vectors : 0));
  }
  constexpr index_t transposition = sizeof(T) == 4 ? 12 : 8;
  const index_t groups = parts_of(cols, Narrow<T>::lanes), most = column_groups(int(rows));
  const index_t sets = groups > chunks ? groups : chunks, side_by_side = sets < most ? sets : most;
  const index_t work = groups * (transposition + 4 * rows);
  const index_t wait = 32 * groups / side_by_side;
  return (work > wait ? work : wait) + 1600 / k;
}

// The same where narrow vectors of chunks are transposed, stored and summed; fitted to measured times of all sides up to 12
// (docs/performance.md).
template <class T>
FBP_FN static index_t dots_cost(const GemmArgs<T>& g, index_t chunk, index_t chunks) {
  constexpr index_t transposition = sizeof(T) == 4 ? 20 : 24, least = sizeof(T) == 4 ? 32 : 64;
  const index_t products = 4 * g.m * g.n;
  const index_t vector = transposition * (g.m + g.n) + (products < least ? least : products);
  return parts_of(chunks, Narrow<T>::lanes) * vector * chunk / (g.k / 16 + 1) / 16;
}

// Whether lanes are better filled with chunks than with rows or columns of C.
template <class T> FBP_FN static bool is_dots(const GemmArgs<T>& g) {
  if (g.m > kDotsSide || g.n > kDotsSide || g.k <= 2 * kMaxChunk || g.a_col != 1 || g.b_row != 1)
    return false;
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k), chunks = parts_of(g.k, chunk);
  const index_t by_rows = thin_cost<T>(g.n, g.m, g.m > 1, g.k, chunks);
  const index_t by_columns = thin_cost<T>(g.m, g.n, g.n > 1, g.k, chunks);
  const index_t dots = dots_cost(g, chunk, chunks);
  return dots < (by_rows < by_columns ? by_rows : by_columns);
}

// Vectors of k values for `lines` rows of A or columns of B, lane l of them from at[l] on: to[q * lines + i].
template <class T>
static void load_chunks(const T* p, index_t line, index_t lines,
                        const std::ptrdiff_t (&at)[Narrow<T>::lanes], index_t k, T* to) {
  using N = Narrow<T>;
  for (index_t i = 0; i < lines; ++i, p += line, to += N::lanes) {
    index_t q = 0;
    for (; q + N::depth <= k; q += N::depth) {
      N column[N::depth];
      load_rows(p + q, at, column);
#pragma GCC unroll 4
      for (int c = 0; c < N::depth; ++c) column[c].store(to + (q + c) * lines * N::lanes);
    }
    for (; q < k; ++q)
      for (int l = 0; l < N::lanes; ++l) to[q * lines * N::lanes + l] = p[q + at[l]];
  }
}

// sums (Rows, Columns) += x y, vectors lane by lane, for k values of k.
template <class T, int Rows, int Columns>
static void add_dots(const T* x, index_t x_line, const T* y, index_t y_line, index_t k, T* sums,
                     index_t row) {
  using V = Narrow<T>;
  constexpr index_t lanes = V::lanes;
  V sum[Rows][Columns];
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) sum[i][j] = V::load(sums + i * row + j * lanes);
  for (; k > 0; --k, x += x_line, y += y_line) {
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
using AddDots = void (*)(const T* x, index_t x_line, const T* y, index_t y_line, index_t k, T* sums,
                         index_t row);
// By rows and columns of a tile, from 1.
static constexpr int kDotsTile = kVectorsAreRegisters ? 4 : 1;
template <class T> struct DotsKernels {
  AddDots<T> get[kDotsTile][kDotsTile];

  template <int Rows, int Columns> constexpr void fill() {
    get[Rows - 1][Columns - 1] = add_dots<T, Rows, Columns>;
    if constexpr (Columns > 1)
      fill<Rows, Columns - 1>();
    else if constexpr (Rows > 1)
      fill<Rows - 1, kDotsTile>();
  }
  constexpr DotsKernels() : get{} { fill<kDotsTile, kDotsTile>(); }
};
template <class T> static constexpr DotsKernels<T> kDotsKernels{};

// sums += the products of `length` values of k of each of `chunks` chunks, the first from a and b on.
template <class T>
static void sum_chunks(const GemmArgs<T>& g, const T* a, const T* b, index_t chunk, index_t chunks,
                       index_t length, T* sums) {
  constexpr index_t lanes = Narrow<T>::lanes;
  alignas(64) T x[kDotsSide * kDotsBlock * lanes], y[kDotsSide * kDotsBlock * lanes];
  std::ptrdiff_t at[lanes];
  for (index_t l = 0; l < lanes; ++l) at[l] = (l < chunks ? l : 0) * chunk;
  for (index_t p = 0; p < length; p += kDotsBlock) {
    const index_t k = length - p < kDotsBlock ? length - p : kDotsBlock;
    load_chunks(a + p, g.a_row, g.m, at, k, x);
    load_chunks(b + p, g.b_col, g.n, at, k, y);
    for (index_t i = 0; i < g.m; i += kDotsTile)
      for (index_t j = 0; j < g.n; j += kDotsTile) {
        const index_t height = g.m - i < kDotsTile ? g.m - i : kDotsTile;
        const index_t width = g.n - j < kDotsTile ? g.n - j : kDotsTile;
        const AddDots<T> add = kDotsKernels<T>.get[height - 1][width - 1];
        add(x + i * lanes, g.m * lanes, y + j * lanes, g.n * lanes, k, sums + (i * g.n + j) * lanes,
            g.n * lanes);
      }
  }
}

// c[e] = or += the lanes of sums[e], one after the other.
template <class T>
static void add_lanes(const T* sums, index_t count, index_t chunks, bool first, T* c) {
  for (index_t e = 0; e < count; ++e, sums += Narrow<T>::lanes) {
    T total = first ? sums[0] : c[e] + sums[0];
    for (index_t l = 1; l < chunks; ++l) total = total + sums[l];
    c[e] = total;
  }
}

template <class T> static void sum_dots(const GemmArgs<T>& g, index_t chunk, T* totals) {
  constexpr index_t lanes = Narrow<T>::lanes;
  alignas(64) T sums[kDotsSide * kDotsSide * lanes], last_sums[kDotsSide * kDotsSide];
  const index_t step = chunk * lanes, count = g.m * g.n;
  for (index_t begin = 0; begin < g.k; begin += step) {
    const index_t length = g.k - begin < step ? g.k - begin : step;
    const index_t chunks = parts_of(length, chunk), last = length - (chunks - 1) * chunk;
    for (index_t e = 0; e < count * lanes; ++e) sums[e] = T(0);
    if (begin == 0 && g.bias)
      for (index_t e = 0; e < count; ++e) sums[e * lanes] = g.bias[e % g.n];
    const T *a = g.a + begin, *b = g.b + begin;
    sum_chunks(g, a, b, chunk, chunks, last, sums);
    if (last < chunk && chunks > 1) {  // the others go on
      for (index_t e = 0; e < count; ++e) last_sums[e] = sums[e * lanes + chunks - 1];
      sum_chunks(g, a + last, b + last, chunk, chunks - 1, chunk - last, sums);
      for (index_t e = 0; e < count; ++e) sums[e * lanes + chunks - 1] = last_sums[e];
    }
    if (g.stop && g.stop(g.stop_context)) return;
    add_lanes(sums, count, chunks, begin == 0, totals);
  }
}

template <class T> static void dots_gemm(const GemmArgs<T>& g, Share share) {
  if (share.id > 0) return;
  T totals[kDotsSide * kDotsSide] = {};
  sum_dots(g, g.chunk ? g.chunk : k_chunk(g.k), totals);
  for (index_t i = 0; i < g.m; ++i)
    for (index_t j = 0; j < g.n; ++j) g.c[i * g.c_row + j] = totals[i * g.n + j];
  if (g.op) g.op(g.context, g.c, g.c_row, 0, g.m, 0, g.n);
}
