// Products whose sums are short: writing C takes as long as making it, and a call for each tile longer. A strip of
// rows of C is written from end to end, each block of B's columns held in registers meanwhile.

// Sums of so many terms at most, a multiple of every vector's lanes; and of so many while a block of B is two vectors
// wide, which the registers then hold.
static constexpr int kShortDepth = 16;
static constexpr int kShortWideDepth = 12;
// Rows of C that are written side by side: as many as A stored by columns is packed by. Where all columns are one or two
// vectors, any number.
static constexpr index_t kShortRows = 16;
// With fewer columns most lanes are idle: then C's transpose is made.
static constexpr index_t kShortColumns = 3;
// Vectors of columns from which an A stored by columns is worth packing.
static constexpr index_t kShortPackVectors = 4;
// Rows from which a B stored by columns is.
static constexpr index_t kShortPackRows = 13;

template <class T> struct ShortStrip {
  const T* a;  // a(first row, 0); its rows are contiguous
  index_t a_row;
  const T* b;  // b(0, first column)
  index_t b_row;
  T* c;
  index_t c_row;
  const T* bias;  // null, or of the first column
  index_t rows;
  int tail;  // valid lanes of a block with Tail
};

// c (rows, Vectors * lanes) = bias + a (rows, Depth) b (Depth, ...). Tail: one vector, of which only `tail` lanes are in
// memory.
template <class T, int Depth, int Vectors, bool Tail>
static void short_kernel(const ShortStrip<T>& s) {
  using V = Item<T>;
  constexpr int last = Vectors - 1;
  V b[Depth][Vectors], start[Vectors];
#pragma GCC unroll 2
  for (int v = 0; v < Vectors; ++v) {
    start[v] = s.bias ? load_vector<V, last, Tail>(s.bias, v, s.tail) : V(T(0));
#pragma GCC unroll 16
    for (int p = 0; p < Depth; ++p)
      b[p][v] = load_vector<V, last, Tail>(s.b + p * s.b_row, v, s.tail);
  }
  const T* a = s.a;
  T* c = s.c;
  for (index_t i = 0; i < s.rows; ++i, a += s.a_row, c += s.c_row) {
    V sum[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[v] = start[v];
#pragma GCC unroll 16
    for (int p = 0; p < Depth; ++p) {
      const V x(a[p]);
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[v] = fma(x, b[p][v], sum[v]);
    }
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v)
      if (Tail)
        sum[v].store_n(c, s.tail);
      else
        sum[v].store(c + v * V::lanes);
  }
}

template <class T> using ShortKernel = void (*)(const ShortStrip<T>&);

template <class T> struct ShortWidths {
  ShortKernel<T> two;        // null where registers are too few
  ShortKernel<T> one, part;  // a vector of one lane has no part
};

// By depth, from 1.
template <class T> struct ShortKernels {
  ShortWidths<T> get[kShortDepth];

  template <int Depth> constexpr void fill() {
    auto& widths = get[Depth - 1];
    if constexpr (Depth <= kShortWideDepth) widths.two = short_kernel<T, Depth, 2, false>;
    widths.one = short_kernel<T, Depth, 1, false>;
    if constexpr (Item<T>::lanes > 1) widths.part = short_kernel<T, Depth, 1, true>;
    if constexpr (Depth > 1) fill<Depth - 1>();
  }
  constexpr ShortKernels() : get{} { fill<kShortDepth>(); }
};
template <class T> static constexpr ShortKernels<T> kShortKernels{};

template <class T> FBP_FN static bool is_short(const GemmArgs<T>& g) {
  if (g.k < 1 || g.k > kShortDepth || g.n < kShortColumns || g.op || g.stop) return false;
  if (g.chunk && g.chunk < g.k) return false;
  if (g.a_col != 1 && g.n < kShortPackVectors * Vec<T>::lanes) return false;
  return g.b_col == 1 || (g.m >= kShortPackRows && g.k * (g.n + Vec<T>::lanes) <= kGemmScratch<T>);
}

// `rows` rows of an A stored by columns, k values each, for `to` by rows, kShortDepth apart.
template <class T>
static void pack_short(const T* a, index_t a_col, index_t rows, index_t k, T* to) {
  constexpr index_t lanes = Vec<T>::lanes;
  Vec<T> block[lanes];
  for (index_t i = 0; i < rows; i += lanes)
    for (index_t p = 0; p < k; p += lanes) {
      load_columns(a + p * a_col + i, a_col, rows - i, k - p, block);
#pragma GCC unroll 16
      for (int q = 0; q < lanes; ++q)
        if (q < rows - i) block[q].store(to + (i + q) * kShortDepth + p);
    }
}

// The columns [0, cols) of a strip, block by block.
template <class T>
static void run_short_strip(const ShortWidths<T>& kernels, ShortStrip<T> s, index_t cols) {
  constexpr index_t lanes = Item<T>::lanes;
  const auto run = [&](ShortKernel<T> kernel, index_t width) {
    kernel(s);
    s.b += width, s.c += width, cols -= width;
    if (s.bias) s.bias += width;
  };
  while (kernels.two && cols >= 2 * lanes) run(kernels.two, 2 * lanes);
  while (cols >= lanes) run(kernels.one, lanes);
  s.tail = int(cols);
  if (cols > 0) kernels.part(s);
}

template <class T> static void short_gemm(const GemmArgs<T>& g, Share share) {
  constexpr index_t lanes = Vec<T>::lanes;
  const bool by_rows = g.m >= share.count * kShortRows;
  if (!take_part(&share, by_rows ? share.count : parts_of(g.n, 2 * lanes))) return;
  const Range rows = by_rows ? split(g.m, 1, share) : Range{0, g.m};
  const Range columns = by_rows ? Range{0, g.n} : split(g.n, 2 * lanes, share);
  const index_t cols = columns.end - columns.begin;
  ShortStrip<T> s{};
  s.b = g.b + columns.begin * g.b_col, s.b_row = g.b_row;
  if (g.b_col != 1) {
    s.b_row = (cols + lanes - 1) / lanes * lanes;
    pack_columns(s.b, g.b_col, g.k, cols, s.b_row, g.scratch);
    s.b = g.scratch;
  }
  s.c_row = g.c_row;
  s.bias = g.bias ? g.bias + columns.begin : nullptr;
  const auto& kernels = kShortKernels<T>.get[g.k - 1];
  const bool pack = g.a_col != 1;
  alignas(64) T packed[kShortRows * kShortDepth];
  s.a_row = pack ? kShortDepth : g.a_row;
  const index_t all = rows.end - rows.begin;
  const index_t most = pack || cols > 2 * lanes ? kShortRows : all;
  const index_t strips = parts_of(all, most);
  for (index_t strip = 0; strip < strips; ++strip) {
    const index_t begin = rows.begin + all * strip / strips;
    s.rows = rows.begin + all * (strip + 1) / strips - begin;
    s.a = pack ? packed : g.a + begin * g.a_row;
    if (pack) pack_short(g.a + begin, g.a_col, s.rows, g.k, packed);
    s.c = g.c + begin * g.c_row + columns.begin;
    run_short_strip<T>(kernels, s, cols);
  }
}
