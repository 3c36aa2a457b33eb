// Products of which one side has few rows or columns: Z (Rows, n) = X (Rows, k) Y (k, n), where Z is C, or the
// transpose of a C with few columns, for C^T = B^T A^T.
//
// An element of Y is used a few times only, so that packing it would cost more than the product. It is read
// once, as it lies: by columns in blocks transposed in registers, by rows in tiles, or, where the rows are long, row by
// row in the order in which they lie, as fast as caches and memory deliver them.

// Rows of Z beside a block of Y in registers, or in one tile.
static constexpr int kThinRows = kMaxTileRows < 12 ? kMaxTileRows : 12;
// Rows of Z for which whole rows of Y are read.
static constexpr int kStreamRows = kThinRows < 4 ? kThinRows : 4;
// And vectors of them at least.
static constexpr index_t kLeastStreamVectors = 4;
// Columns of Z that are made at once, in vectors for one row: with 4 rows, sums and totals fill half of L1.
static constexpr int kThinVectors = 128;

template <class T> struct Thin {
  index_t k, chunk;
  const T* x;
  index_t x_row, x_col;
  const T* y;
  index_t y_row, y_col;
  index_t rows;
  T* z;  // starts as the bias or zero, ends as the sum
  index_t z_row;
  T* sums;  // laid out as z; of one chunk
};

// Sums of one vector of columns of Z over k in [begin, end), Y by columns.
template <class T, int Rows>
FBP_FN static void add_thin_columns(const Thin<T>& t, const T* y, index_t cols, index_t begin,
                                    index_t end, Vec<T> (&sum)[Rows]) {
  using V = Vec<T>;
  if constexpr (!kVectorsAreRegisters) {
    for (index_t j = 0; j < V::lanes && j < cols; ++j)
      for (int i = 0; i < Rows; ++i) {
        Lane<T> of = sum[i].a[j];
        for (index_t p = begin; p < end; ++p)
          of = fma(Lane<T>(t.x[i * t.x_row + p * t.x_col]), Lane<T>(y[j * t.y_col + p]), of);
        sum[i].a[j] = of;
      }
    return;
  }
  constexpr index_t line = V::lanes;
  V block[V::lanes];
  // Where the columns share few sets of the caches, blocks that straddle lines would read each twice, with its
  // eviction in between: then a short first block goes up to the next line.
  const bool aligned = t.y_col * index_t(sizeof(T)) % (kSetSpan / 2) == 0;
  index_t depth =
      aligned ? line - index_t(reinterpret_cast<std::uintptr_t>(y + begin) / sizeof(T)) % line
              : line;
  for (index_t p = begin; p < end; p += depth, depth = line) {
    if (depth > end - p) depth = end - p;
    const T* x = t.x + p * t.x_col;
    load_columns(y + p, t.y_col, depth, cols, block);
#pragma GCC unroll 16
    for (int q = 0; q < V::lanes; ++q)
      if (q < depth)
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i)
          sum[i] = fma(V(x[i * t.x_row + q * t.x_col]), block[q], sum[i]);
  }
}

// Y by columns: blocks of lanes x lanes are transposed in registers.
template <class T, int Rows> static void thin_columns(const Thin<T>& t, index_t j, index_t cols) {
  using V = Vec<T>;
  for (index_t v = 0; v < cols; v += V::lanes) {
    const T* y = t.y + (j + v) * t.y_col;
    V total[Rows];
    for (int i = 0; i < Rows; ++i) total[i] = V::load(t.z + i * t.z_row + v);
    add_thin_columns<T, Rows>(t, y, cols - v, 0, t.k < t.chunk ? t.k : t.chunk, total);
    for (index_t begin = t.chunk; begin < t.k; begin += t.chunk) {
      V sum[Rows];
      for (int i = 0; i < Rows; ++i) sum[i] = V(T(0));
      add_thin_columns<T, Rows>(t, y, cols - v, begin,
                                t.k - begin < t.chunk ? t.k : begin + t.chunk, sum);
      for (int i = 0; i < Rows; ++i) total[i] = total[i] + sum[i];
    }
    for (int i = 0; i < Rows; ++i) total[i].store(t.z + i * t.z_row + v);
  }
}

// How many groups of columns may be read side by side: those whose rows share few sets of the caches would push each
// other out, since a line is read in several visits.
template <class T> FBP_FN static index_t groups_in_cache(index_t y_col) {
  const index_t bytes = y_col * index_t(sizeof(T));
  const index_t rows = bytes % kSetSpan == 0         ? kSetWays
                       : bytes % (kSetSpan / 2) == 0 ? 2 * kSetWays
                                                     : 4 * kSetWays;
  return rows / Narrow<T>::lanes;
}

// Rows of Z, of the columns from j on: read from `from`, with the sums over [begin, end) of k added, to `to`.
template <class T> struct ThinSpan {
  index_t j, cols;
  index_t begin, end;
  const T* from;
  T* to;
};

// The sums of `groups` groups of columns from `column` on, the last of them moved back to end with the last column; or,
// with Apart, of one group, by as many chunks at a time.
template <class T, int Rows, bool Apart>
static void thin_groups(const Thin<T>& t, const ThinSpan<T>& span, ColumnSums<T>& s, index_t column,
                        index_t groups) {
  using N = Narrow<T>;
  alignas(64) T sums[column_groups(Rows)][Rows][N::lanes],
      total[column_groups(Rows)][Rows][N::lanes];
  const auto place = [&](index_t g) {
    const index_t c = column + g * N::lanes, last = span.cols - N::lanes;
    return c < last ? c : last < 0 ? 0 : last;
  };
  s.sums = &sums[0][0][0];
  constexpr index_t x_col = side_by_side<T>(Rows);
  s.x_group = t.chunk * x_col;
  const T* x = s.x;
  const index_t sets = Apart ? 1 : groups;
  for (index_t g = 0; g < sets; ++g)
    for (int i = 0; i < Rows; ++i) N::load(span.from + i * t.z_row + place(g)).store(total[g][i]);
  index_t side_by_side = 1;
  for (index_t p = span.begin; p < span.end; p += side_by_side * t.chunk) {
    const index_t whole = (span.end - p) / t.chunk;
    side_by_side = !Apart || whole == 0 ? 1 : whole < groups ? whole : groups;
    const index_t count = Apart ? side_by_side : groups;
    s.k = whole == 0 ? span.end - p : t.chunk;
    s.x = x + (p - span.begin) * x_col;
    for (index_t g = 0; g < count; ++g) {
      s.y[g] = t.y + (span.j + place(Apart ? 0 : g)) * t.y_col + p + (Apart ? g * t.chunk : 0);
      for (int i = 0; i < Rows; ++i)
        (p == 0 && (!Apart || g == 0) ? N::load(total[g][i]) : N(T(0))).store(sums[g][i]);
    }
    kColumnKernels<T, Rows>.get[Apart][count - 1](s);
    for (index_t g = 0; g < count; ++g)
      for (int i = 0; i < Rows; ++i) {
        T* to = total[Apart ? 0 : g][i];
        const N sum = N::load(sums[g][i]);
        (p == 0 && (!Apart || g == 0) ? sum : N::load(to) + sum).store(to);
      }
  }
  s.x = x;
  for (index_t g = 0; g < sets; ++g)
    for (int i = 0; i < Rows; ++i) N::load(total[g][i]).store(span.to + i * t.z_row + place(g));
}

// The rows of X from value p of k on as add_columns() reads them: row i's value q at to[i * row + q], or side by side at
// to[q * row + i].
template <class T>
static void pack_x(const Thin<T>& t, index_t p, index_t k, bool by_rows, index_t row, T* to) {
  using N = Narrow<T>;
  if (by_rows) {
    for (index_t i = 0; i < t.rows; ++i)
      for (index_t q = 0; q < k; ++q) to[i * row + q] = t.x[i * t.x_row + (p + q) * t.x_col];
    return;
  }
  std::ptrdiff_t at[N::lanes];
  for (index_t i = 0; i < t.rows; i += N::lanes) {
    for (index_t l = 0; l < N::lanes; ++l) at[l] = (i + l < t.rows ? i + l : t.rows - 1) * t.x_row;
    index_t q = 0;
    if (t.x_col == 1)
      for (; q + N::depth <= k; q += N::depth) {
        N column[N::depth];
        load_rows(t.x + p + q, at, column);
        for (int c = 0; c < N::depth; ++c) column[c].store(to + (q + c) * row + i);
      }
    for (; q < k; ++q)
      for (index_t l = 0; l < N::lanes; ++l) to[q * row + i + l] = t.x[(p + q) * t.x_col + at[l]];
  }
}

// Y by columns, long sums: narrow vectors of them, transposed in registers.
template <class T, int Rows> static void thin_narrow(const Thin<T>& t, index_t j, index_t cols) {
  using N = Narrow<T>;
  constexpr index_t most = column_groups(Rows);
  ColumnSums<T> s;
  for (index_t i = 0; i < N::lanes; ++i) s.at[i] = (i < cols ? i : cols - 1) * t.y_col;
  constexpr index_t width = side_by_side<T>(Rows);
  const bool by_rows = Rows < kSideBySide, pack = !by_rows || t.x_col != 1;
  const index_t length = pack ? kChunksPerPanel * t.chunk : t.k;
  T* packed = t.sums + (t.sums - t.z);
  s.x_row = pack ? length : t.x_row;
  const index_t groups = parts_of(cols, N::lanes), near = groups_in_cache<T>(t.y_col);
  const index_t at_once = near < most ? near : most;
  const bool far = t.k * cols * index_t(sizeof(T)) > kFarBytes;
  const bool apart = t.k >= 2 * t.chunk && most > 1 && (groups < most || near < most) && !far;
  T *from = t.z, *to = t.sums;
  for (index_t p = 0; p < t.k; p += length) {
    const ThinSpan<T> span{j, cols, p, t.k - p < length ? t.k : p + length, from, to};
    if (pack) pack_x(t, p, span.end - p, by_rows, by_rows ? length : width, packed);
    s.x = pack ? packed : t.x + p;
    const index_t calls = apart ? groups : parts_of(groups, at_once);
    for (index_t call = 0; call < calls; ++call) {
      const index_t g = groups * call / calls, count = groups * (call + 1) / calls - g;
      if (apart)
        thin_groups<T, Rows, true>(t, span, s, g * N::lanes, most);
      else
        thin_groups<T, Rows, false>(t, span, s, g * N::lanes, count);
    }
    T* const other = from;
    from = to, to = other;
  }
  if (from == t.z) return;
  for (index_t i = 0; i < Rows * t.z_row; i += Vec<T>::lanes) Vec<T>::load(from + i).store(t.z + i);
}

// Vectors of the widest tile that has `rows` rows.
FBP_FN static int thin_tile_vectors(index_t rows) {
  int vectors = kTileVectors;
  while (kTileRows[vectors - 1] < rows) --vectors;
  return vectors;
}

// Y by rows, in one row of register tiles.
template <class T> static void thin_tiles(const Thin<T>& t, index_t j, index_t cols) {
  constexpr index_t lanes = Vec<T>::lanes;
  const bool x_transposed = t.x_row == 1 && t.x_col != 1;
  const index_t most = thin_tile_vectors(t.rows) * lanes;
  MicroArgs<T> micro;
  micro.a_row = t.x_row, micro.a_col = t.x_col;
  micro.b_row = t.y_row;
  micro.c_row = micro.bias_row = t.z_row;
  for (index_t v = 0; v < cols; v += most) {
    const index_t width = cols - v < most ? cols - v : most;
    const Tiles<T> tiles = tiles_for<T>(width, x_transposed);
    micro.tail = tiles.tail;
    micro.c = t.z + v;
    for (index_t p = 0; p < t.k; p += t.chunk) {
      micro.first = p == 0;
      micro.bias = p == 0 ? micro.c : nullptr;
      micro.k = t.k - p < t.chunk ? t.k - p : t.chunk;
      micro.a = t.x + p * t.x_col;
      micro.b = t.y + p * t.y_row + j + v;
      tiles.kernels[t.rows - 1](micro);
    }
  }
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

// By rows of Z, from 1.
template <class T> struct ThinKernels {
  ThinKernel<T> rows[kStreamRows], columns[kThinRows], narrow[kThinRows];

  template <int Rows> constexpr void fill() {
    columns[Rows - 1] = thin_columns<T, Rows>;
    if constexpr (is_narrow<T>(Rows, kNarrowDepth)) narrow[Rows - 1] = thin_narrow<T, Rows>;
    if constexpr (Rows <= kStreamRows) rows[Rows - 1] = thin_rows<T, Rows>;
    if constexpr (Rows > 1) fill<Rows - 1>();
  }
  constexpr ThinKernels() : rows{}, columns{}, narrow{} { fill<kThinRows>(); }
};
template <class T> static constexpr ThinKernels<T> kThinKernels{};

// Rows that are interleaved, or columns of so few values that are turned, by a loop of known length.
static constexpr index_t kMostInterleaved = 4;

// Columns of few values each, without gaps.
FBP_FN static bool is_shallow(index_t row, index_t col, index_t k) {
  return row == 1 && col == k && k > 1 && k <= kMostInterleaved;
}

// Whether a tile walks B, by rows and of more than so many bytes, from page to page, or rows of `least` bytes.
template <class T>
FBP_FN static bool is_by_pages(const GemmArgs<T>& g, index_t bytes, index_t least = kSetSpan) {
  const index_t row_bytes = g.b_row * index_t(sizeof(T));
  return row_bytes >= least && row_bytes * g.k > bytes;
}

enum class ThinForm { none, rows, columns };  // of C, the few

// Where the kernels above beat tiles of C. A C with few columns leaves lanes of a tile idle; one with few rows is as well
// made by tiles, unless B would have to be packed for them, or they would walk it by pages.
template <class T> FBP_FN static ThinForm thin_form(const GemmArgs<T>& g) {
  constexpr index_t lanes = Vec<T>::lanes;
  if (g.n > kThinRows && g.m > kThinRows) return ThinForm::none;
  if (g.n <= kThinRows) {
    if (g.n <= kStreamRows && g.m >= lanes) return ThinForm::columns;
    const index_t chunks = parts_of(g.k, g.chunk ? g.chunk : k_chunk(g.k));
    // Storing C counts where sums are short: its transpose has to be turned back.
    const index_t turn = (g.n <= 4 ? 12 : 48 * parts_of(g.n, lanes)) * g.m / (g.k + 1);
    const index_t store = 24 * parts_of(g.n, lanes) * g.m / (g.k + 1);
    // Narrow vectors want X by rows; 0 stands for sums that are too short for them.
    const index_t swapped_depth = g.b_row == 1 || g.m >= kNarrowDepth ? g.k : 0;
    const index_t straight_depth = g.a_col == 1 && g.m <= kThinRows ? g.k : 0;
    const index_t swapped = thin_cost<T>(g.n, g.m, g.a_col == 1, swapped_depth, chunks) + turn;
    const index_t straight = thin_cost<T>(g.m, g.n, g.b_col != 1, straight_depth, chunks) + store;
    if (8 * swapped < 7 * straight) return ThinForm::columns;
  }
  if (g.m > kThinRows || g.discard_c) return ThinForm::none;
  if (is_shallow(g.b_row, g.b_col, g.k) && g.n >= lanes) return ThinForm::rows;
  if (g.k < lanes) return ThinForm::none;
  const bool narrow = g.b_col != 1 && g.a_col == 1 && is_narrow<T>(g.m, g.k);
  if (g.n < lanes && !narrow) return ThinForm::none;
  if (g.b_col != 1) return ThinForm::rows;
  // One row in tiles a vector wide is a few sums that wait for themselves, and a B beyond L1 comes a line at a time.
  if (!kWideTiles && g.m == 1 && g.n >= kLeastStreamVectors * lanes &&
      is_by_pages<T>(g, kSetSpan * kSetWays, kSetSpan / 4))
    return ThinForm::rows;
  return g.m <= kStreamRows && is_by_pages<T>(g, kInPlaceBytes) ? ThinForm::rows : ThinForm::none;
}

// Columns [j, j + cols) of Z into C, and `op` on them.
template <class T>
static void finish_rows(const GemmArgs<T>& g, const Thin<T>& t, index_t j, index_t cols) {
  for (index_t i = 0; i < g.m; ++i)
    for (index_t v = 0; v < cols; ++v) g.c[i * g.c_row + j + v] = t.z[i * t.z_row + v];
  if (g.op) g.op(g.context, g.c + j, g.c_row, 0, g.m, j, cols);
}

// c(v, i) = z(i, v), Rows of z, C without gaps: a form that compilers make vector code of.
template <int Rows, class T>
static void interleave(const T* __restrict z, index_t z_row, index_t cols, T* __restrict c) {
  for (index_t v = 0; v < cols; ++v)
    for (int i = 0; i < Rows; ++i) c[v * Rows + i] = z[i * z_row + v];
}

// And back: z(i, v) = c(v, i).
template <int Rows, class T>
static void deinterleave(const T* __restrict c, index_t cols, T* __restrict z, index_t z_row) {
  for (index_t v = 0; v < cols; ++v)
    for (int i = 0; i < Rows; ++i) z[i * z_row + v] = c[v * Rows + i];
}

// Both for 1 to kMostInterleaved rows.
template <class T>
static void interleave_few(const T* z, index_t z_row, index_t rows, index_t cols, T* c) {
  static constexpr decltype(&interleave<1, T>) of_rows[] = {interleave<1, T>, interleave<2, T>,
                                                            interleave<3, T>, interleave<4, T>};
  of_rows[rows - 1](z, z_row, cols, c);
}
template <class T>
static void deinterleave_few(const T* c, index_t rows, index_t cols, T* z, index_t z_row) {
  static constexpr decltype(&deinterleave<1, T>) of_rows[] = {
      deinterleave<1, T>, deinterleave<2, T>, deinterleave<3, T>, deinterleave<4, T>};
  of_rows[rows - 1](c, cols, z, z_row);
}

// c(v, i) = z(i, v), `rows` of z.
template <class T>
static void transpose_back(const T* z, index_t z_row, index_t rows, index_t cols, T* c,
                           index_t c_row) {
  constexpr index_t lanes = Vec<T>::lanes;
  if (rows == c_row && rows <= kMostInterleaved) return interleave_few(z, z_row, rows, cols, c);
  for (index_t v = 0; v < cols; v += lanes)
    for (index_t i = 0; i < rows; i += lanes) {
      const int height = int(rows - i < lanes ? rows - i : lanes);
      const index_t count = cols - v < lanes ? cols - v : lanes;
      Vec<T> block[lanes];
      load_transposed_n(z + i * z_row + v, z_row, int(lanes), height, block);
#pragma GCC unroll 16
      for (int q = 0; q < int(lanes); ++q)
        if (q < count) block[q].store_n(c + (v + q) * c_row + i, height);
    }
}

// The same where Z is the transpose of C.
template <class T>
static void finish_columns(const GemmArgs<T>& g, const Thin<T>& t, index_t j, index_t cols) {
  T* c = g.discard_c ? t.sums : g.c + j * g.c_row;
  const index_t row = g.discard_c ? g.n : g.c_row;
  transpose_back(t.z, t.z_row, g.n, cols, c, row);
  if (!g.op) return;
  if (g.contiguous_op && g.c_row == g.n)  // not row by row, each a vector with idle lanes
    g.op(g.context, c, row, j, 1, 0, cols * g.n);
  else
    g.op(g.context, c, row, j, cols, 0, g.n);
}

// z starts as the bias: of its columns, or of its rows where it is the transpose of C.
template <class T>
static void start_thin(const GemmArgs<T>& g, const Thin<T>& t, bool swapped, index_t j,
                       index_t cols) {
  using V = Vec<T>;
  for (index_t i = 0; i < t.rows; ++i)
    for (index_t v = 0; v < t.z_row; v += V::lanes) {
      const bool whole = v + V::lanes <= cols;
      const V start = !g.bias   ? V(T(0))
                      : swapped ? V(g.bias[i])
                      : whole   ? V::load(g.bias + j + v)
                                : V::load_n(g.bias + j + v, int(cols - v));
      start.store(t.z + i * t.z_row + v);
    }
}

// Whole rows of Y are worth reading where tiles would walk it by pages, and it comes from far; and for one row of Z.
template <class T> static ThinKernel<T> thin_kernel(const Thin<T>& t, index_t n) {
  const auto& kernels = kThinKernels<T>;
  if (t.y_col != 1) {
    const bool narrow = is_narrow<T>(t.rows, t.k) && (t.x_col == 1 || n >= kNarrowDepth);
    return narrow ? kernels.narrow[t.rows - 1] : kernels.columns[t.rows - 1];
  }
  const bool far = t.k * n * index_t(sizeof(T)) > kNearBytes;
  constexpr index_t lanes = Vec<T>::lanes;
  const bool stream = t.rows <= kStreamRows && n >= kLeastStreamVectors * lanes && t.k >= lanes;
  return stream && (far || t.rows == 1) ? kernels.rows[t.rows - 1] : thin_tiles<T>;
}

// Y by shallow columns: turned, then by rows.
template <class T> static void thin_shallow(const Thin<T>& t, index_t j, index_t cols, T* panel) {
  deinterleave_few(t.y + j * t.k, t.k, cols, panel, t.z_row);
  Thin<T> turned = t;
  turned.y = panel, turned.y_row = t.z_row, turned.y_col = 1;
  thin_tiles(turned, 0, cols);
}

template <class T> static void thin_gemm(const GemmArgs<T>& g, bool swapped, Share share) {
  constexpr index_t lanes = Vec<T>::lanes;
  const index_t n = swapped ? g.m : g.n;
  if (!take_part(&share, (n + lanes - 1) / lanes)) return;
  Thin<T> t;
  t.k = g.k, t.chunk = g.chunk ? g.chunk : k_chunk(g.k);
  t.rows = swapped ? g.n : g.m;
  t.x = swapped ? g.b : g.a, t.x_row = swapped ? g.b_col : g.a_row;
  t.x_col = swapped ? g.b_row : g.a_col;
  t.y = swapped ? g.a : g.b, t.y_row = swapped ? g.a_col : g.b_row;
  t.y_col = swapped ? g.a_row : g.b_col;
  t.z = g.scratch, t.sums = g.scratch + (kThinVectors + kThinRows) * lanes;
  T* panel = t.sums + (kThinVectors + kThinRows) * lanes;
  const bool shallow = is_shallow(t.y_row, t.y_col, t.k);
  const ThinKernel<T> kernel = thin_kernel(t, n);
  const Range part = split(n, lanes, share);
  const index_t most = kThinVectors / t.rows * lanes;
  for (index_t j = part.begin; j < part.end; j += most) {
    const index_t cols = part.end - j < most ? part.end - j : most;
    t.z_row = (cols + lanes - 1) / lanes * lanes;
    start_thin(g, t, swapped, j, cols);
    if (g.stop && g.stop(g.stop_context)) return;
    if (shallow)
      thin_shallow(t, j, cols, panel);
    else
      kernel(t, j, cols);
    swapped ? finish_columns(g, t, j, cols) : finish_rows(g, t, j, cols);
  }
}
