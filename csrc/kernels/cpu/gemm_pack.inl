// Copies of parts of A and B in the order in which the micro-kernels of gemm.inl read them; sizes in blocking.h.

// Of a panel with so many columns, in whole vectors.
template <class T> FBP_FN static index_t panel_width(index_t cols) {
  const index_t whole = (cols + Vec<T>::lanes - 1) / Vec<T>::lanes * Vec<T>::lanes;
  return whole < kNr<T> ? whole : kNr<T>;
}

// Panels of b(p, j) for p < k, j < cols, one after the other, each [p][panel_width()], zero where there is no column.
template <class T>
static void pack_rows(const T* b, index_t b_row, index_t k, index_t cols, T* panels) {
  constexpr int lanes = Vec<T>::lanes;
  for (index_t p = 0; p < k; ++p, b += b_row)
    for (index_t j = 0; j < cols; j += kNr<T>) {
      const index_t width = panel_width<T>(cols - j);
      T* to = panels + j * k + p * width;
      for (index_t v = 0; v < width; v += lanes) {
        const index_t left = cols - j - v;
        (left < lanes ? Vec<T>::load_n(b + j + v, int(left)) : Vec<T>::load(b + j + v))
            .store(to + v);
      }
    }
}

// `rows` rows of A, k columns, in strips of kStripRows: [row][k], or [k][kStripRows] where A's columns are contiguous.
template <class T>
static void pack_block(const T* a, index_t a_row, index_t a_col, index_t k, index_t rows,
                       T* block) {
  const auto copy = [](const T* from, index_t length, T* to) {
    index_t j = 0;
    for (; j + Vec<T>::lanes <= length; j += Vec<T>::lanes) Vec<T>::load(from + j).store(to + j);
    const int left = int(length - j);
    if (left > 0) Vec<T>::load_n(from + j, left).store_n(to + j, left);
  };
  if (a_row != 1 || a_col == 1) {
    for (index_t i = 0; i < rows; ++i) copy(a + i * a_row, k, block + i * k);
    return;
  }
  for (index_t p = 0; p < k; ++p, a += a_col, block += kStripRows) {
    index_t i = 0;
    for (; i + kStripRows <= rows; i += kStripRows) copy(a + i, kStripRows, block + i * k);
    copy(a + i, rows - i, block + i * k);
  }
}

// load_transposed() of the first `cols` rows and `depth` columns in memory, for instruction sets that have no
// better way; lanes from `cols` on are 0, vectors from `depth` on anything.
template <class T>
FBP_FN static void load_transposed_n(const T* p, index_t row, int depth, int cols,
                                     Vec<T> (&v)[64 / sizeof(T)]) {
  constexpr int lanes = Vec<T>::lanes;
  alignas(64) T block[lanes * lanes];
  for (int i = 0; i < lanes; ++i)
    (i < cols ? Vec<T>::load_n(p + i * row, depth) : Vec<T>(T(0))).store(block + i * lanes);
  load_transposed(block, lanes, v);
}

// v[p] = b(p, 0 .. lanes) from B stored by columns: b(p, j) at b[j * b_col + p]; zero beyond cols.
// Beyond depth it's anything.
template <class T>
FBP_FN static void load_columns(const T* b, index_t b_col, index_t depth, index_t cols,
                                Vec<T> (&v)[Vec<T>::lanes]) {
  constexpr int lanes = Vec<T>::lanes;
  if (depth >= lanes && cols >= lanes) return load_transposed(b, b_col, v);
  load_transposed_n(b, b_col, int(depth < lanes ? depth : lanes), int(cols < lanes ? cols : lanes),
                    v);
}

// The panel from B stored by columns, in blocks of lanes x lanes.
template <class T>
static void pack_columns(const T* b, index_t b_col, index_t k, index_t cols, index_t width,
                         T* panel) {
  constexpr int lanes = Vec<T>::lanes;
  if (k < lanes / 4) {  // too shallow for whole vectors
    for (index_t p = 0; p < k; ++p)
      for (index_t j = 0; j < width; ++j) panel[p * width + j] = j < cols ? b[j * b_col + p] : T(0);
    return;
  }
  Vec<T> block[lanes];
  for (index_t j = 0; j < width; j += lanes) {
    for (index_t p = 0; p < k; p += lanes) {
      load_columns(b + j * b_col + p, b_col, k - p, cols - j, block);
#pragma GCC unroll 16
      for (int q = 0; q < lanes; ++q)
        if (q < k - p) block[q].store(panel + (p + q) * width + j);
    }
  }
}
