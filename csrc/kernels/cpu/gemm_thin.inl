// Products of which one side has at most kThinRows rows or columns: Z (Rows, n) = X (Rows, k)
// Y (k, n), where Z is C, or the transpose of a C with few columns, for C^T = B^T A^T.
//
// An element of Y is used a few times only, so that packing it would cost more than the product.
// It is read once, as it lies and in the order in which it lies: what counts is the speed at which
// caches and memory deliver Y.

static constexpr int kThinRows = 4;
// Columns of Z that are made at once, in vectors: with 4 rows, sums and totals fill half of L1.
static constexpr int kThinVectors = 32;

template <class T> struct Thin {
  index_t k, chunk;
  const T* x;
  index_t x_row, x_col;
  const T* y;
  index_t y_row, y_col;
  T* z;  // starts as the bias or zero, ends as the sum
  index_t z_row;
  T* sums;  // laid out as z; of one chunk
};

// Y by columns: a vector of columns, blocks of lanes x lanes transposed in registers.
template <class T, int Rows> static void thin_columns(const Thin<T>& t, index_t j, index_t cols) {
  using V = Vec<T>;
  constexpr index_t line = V::lanes;
  const T* y = t.y + j * t.y_col;
  V block[V::lanes], total[Rows];
  for (int i = 0; i < Rows; ++i) total[i] = V::load(t.z + i * t.z_row);
  for (index_t begin = 0; begin < t.k; begin += t.chunk) {
    const index_t end = t.k - begin < t.chunk ? t.k : begin + t.chunk;
    V sum[Rows];
    for (int i = 0; i < Rows; ++i) sum[i] = begin == 0 ? total[i] : V(T(0));
    // A short first block up to the next cache line: columns that are pages apart would evict a line of
    // which only a part has been read.
    index_t depth = line - index_t(reinterpret_cast<std::uintptr_t>(y + begin) / sizeof(T)) % line;
    for (index_t p = begin; p < end; p += depth, depth = line) {
      if (depth > end - p) depth = end - p;
      const T* x = t.x + p * t.x_col;
      load_columns(y + p, t.y_col, depth, cols, block);
#pragma GCC unroll 16
      for (int q = 0; q < V::lanes; ++q)
        if (q < depth)
          for (int i = 0; i < Rows; ++i)
            sum[i] = fma(V(x[i * t.x_row + q * t.x_col]), block[q], sum[i]);
    }
    for (int i = 0; i < Rows; ++i) total[i] = begin == 0 ? sum[i] : total[i] + sum[i];
  }
  for (int i = 0; i < Rows; ++i) total[i].store(t.z + i * t.z_row);
}

// z += X Y for Depth rows of Y from p on: so many streams are read side by side.
template <class T, int Rows, int Depth>
static void add_thin_rows(const Thin<T>& t, index_t p, index_t j, index_t cols, T* z) {
  using V = Vec<T>;
  V x[Depth][Rows];
  for (int q = 0; q < Depth; ++q)
    for (int i = 0; i < Rows; ++i) x[q][i] = V(t.x[i * t.x_row + (p + q) * t.x_col]);
  const T* y = t.y + p * t.y_row + j;
  const auto add = [&](index_t v, auto load) {
    V sum[Rows];
    for (int i = 0; i < Rows; ++i) sum[i] = V::load(z + i * t.z_row + v);
    for (int q = 0; q < Depth; ++q) {
      const V row = load(y + q * t.y_row + v);
      for (int i = 0; i < Rows; ++i) sum[i] = fma(x[q][i], row, sum[i]);
    }
    for (int i = 0; i < Rows; ++i) sum[i].store(z + i * t.z_row + v);
  };
  index_t v = 0;
  for (; v + V::lanes <= cols; v += V::lanes) add(v, [](const T* row) { return V::load(row); });
  if (v < cols) add(v, [=](const T* row) { return V::load_n(row, int(cols - v)); });
}

// Y by rows: whole rows of the panel, a few at a time.
template <class T, int Rows> static void thin_rows(const Thin<T>& t, index_t j, index_t cols) {
  using V = Vec<T>;
  constexpr int depth = Rows <= 2 ? 8 : 4;
  for (index_t begin = 0; begin < t.k; begin += t.chunk) {
    const index_t end = t.k - begin < t.chunk ? t.k : begin + t.chunk;
    T* z = begin == 0 ? t.z : t.sums;
    if (begin > 0)
      for (index_t i = 0; i < Rows * t.z_row; i += V::lanes) V(T(0)).store(z + i);
    index_t p = begin;
    for (; p + depth <= end; p += depth) add_thin_rows<T, Rows, depth>(t, p, j, cols, z);
    for (; p < end; ++p) add_thin_rows<T, Rows, 1>(t, p, j, cols, z);
    if (begin > 0)
      for (index_t i = 0; i < Rows * t.z_row; i += V::lanes)
        (V::load(t.z + i) + V::load(z + i)).store(t.z + i);
  }
}

template <class T> using ThinKernel = void (*)(const Thin<T>&, index_t j, index_t cols);
template <class T>
static constexpr ThinKernel<T> kThinKernels[2][kThinRows] = {
    {thin_rows<T, 1>, thin_rows<T, 2>, thin_rows<T, 3>, thin_rows<T, 4>},
    {thin_columns<T, 1>, thin_columns<T, 2>, thin_columns<T, 3>, thin_columns<T, 4>}};

enum class ThinForm { none, rows, columns };  // of C, the few

// Where the kernels above beat tiles. Columns of Y cost a transposition, which a short sum doesn't
// earn. A C with few columns leaves most lanes of a tile idle; one with few rows is as well made by
// tiles, unless they would walk Y by pages.
template <class T> FBP_FN static ThinForm thin_form(const GemmArgs<T>& g) {
  constexpr index_t lanes = Vec<T>::lanes;
  const bool long_sum = g.k >= lanes;
  if (g.n <= kThinRows && g.m >= lanes && (long_sum || (g.n == 1 && g.a_row == 1)))
    return ThinForm::columns;
  if (g.m > kThinRows || g.n < lanes || !long_sum || g.discard_c) return ThinForm::none;
  const index_t row_bytes = g.b_row * index_t(sizeof(T));
  const bool by_pages = row_bytes >= kSetSpan && row_bytes * g.k > kInPlaceBytes;
  return g.b_col != 1 || by_pages ? ThinForm::rows : ThinForm::none;
}

// Columns [j, j + cols) of Z into C, and `op` on them.
template <class T>
static void finish_rows(const GemmArgs<T>& g, const Thin<T>& t, index_t j, index_t cols) {
  for (index_t i = 0; i < g.m; ++i)
    for (index_t v = 0; v < cols; ++v) g.c[i * g.c_row + j + v] = t.z[i * t.z_row + v];
  if (g.op) g.op(g.context, g.c + j, g.c_row, 0, g.m, j, cols);
}

// The same where Z is the transpose of C.
template <class T>
static void finish_columns(const GemmArgs<T>& g, const Thin<T>& t, index_t j, index_t cols) {
  T* c = g.discard_c ? t.sums : g.c + j * g.c_row;
  const index_t row = g.discard_c ? g.n : g.c_row;
  for (index_t v = 0; v < cols; ++v)
    for (index_t i = 0; i < g.n; ++i) c[v * row + i] = t.z[i * t.z_row + v];
  if (!g.op) return;
  if (g.contiguous_op && g.c_row == g.n)  // not row by row, each a vector with idle lanes
    g.op(g.context, c, row, j, 1, 0, cols * g.n);
  else
    g.op(g.context, c, row, j, cols, 0, g.n);
}

template <class T> static void thin_gemm(const GemmArgs<T>& g, bool swapped, Share share) {
  constexpr index_t lanes = Vec<T>::lanes;
  const index_t n = swapped ? g.m : g.n;
  if (!take_part(&share, (n + lanes - 1) / lanes)) return;
  const index_t rows = swapped ? g.n : g.m, chunk = g.chunk ? g.chunk : k_chunk(g.k);
  Thin<T> t{g.k,
            chunk,
            g.a,
            g.a_row,
            g.a_col,
            g.b,
            g.b_row,
            g.b_col,
            g.scratch,
            0,
            g.scratch + kThinRows * kThinVectors * lanes};
  if (swapped)
    t.x = g.b, t.x_row = g.b_col, t.x_col = g.b_row, t.y = g.a, t.y_row = g.a_col,
    t.y_col = g.a_row;
  const bool by_columns = t.y_col != 1;
  const ThinKernel<T> kernel = kThinKernels<T>[by_columns][rows - 1];
  const Range part = split(n, lanes, share);
  const index_t most = by_columns ? lanes : kThinVectors * kThinRows / rows * lanes;
  for (index_t j = part.begin; j < part.end; j += most) {
    const index_t cols = part.end - j < most ? part.end - j : most;
    t.z_row = (cols + lanes - 1) / lanes * lanes;
    for (index_t i = 0; i < rows; ++i)
      for (index_t v = 0; v < t.z_row; ++v)
        t.z[i * t.z_row + v] = !g.bias    ? T(0)
                               : swapped  ? g.bias[i]
                               : v < cols ? g.bias[j + v]
                                          : T(0);
    if (g.stop && g.stop(g.stop_context)) return;
    kernel(t, j, cols);
    swapped ? finish_columns(g, t, j, cols) : finish_rows(g, t, j, cols);
  }
}
