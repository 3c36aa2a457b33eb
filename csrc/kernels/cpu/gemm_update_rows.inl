// The gradient of a kernel in blocks of rows, each of which is updated from end to end, beside narrow tiles.
//
// Tile by tile an update takes a line of memory from each of the rows of the parameters and of each slot: lines that are
// a row apart, of which no prefetcher makes a stream, and of pages that are others for each row. Where sums are short
// that takes longer than they do (docs/performance.md). A block's gradient stays in L2 until its rows are updated.

template <class T>
static constexpr index_t kUpdateBlockColumns = kPackedBlock<T> / kUpdateBlockRows / kNr<T> * kNr<T>;

template <class T> FBP_FN static bool is_updated_by_rows(const GemmArgs<T>& g) {
  if (kWideTiles || g.optimizer < 0 || !g.discard_c || g.stop) return false;
  const index_t bytes = g.m * g.n * index_t(sizeof(T));
  return g.k <= kOuterDepth ? bytes >= kUpdatedBytes
                            : g.k <= kFarUpdatedDepth &&
                                  (1 + optimizer_slots(g.optimizer)) * bytes >= kFarUpdatedBytes;
}

template <class T>
static void run_updated_rows(const GemmArgs<T>& g, bool pack, Range rows, index_t chunk) {
  GemmArgs<T> block = g;
  block.op = nullptr, block.optimizer = -1, block.discard_c = false;
  block.c = g.scratch + kPanelScratch<T>;
  for (index_t j = 0; j < g.n; j += block.n) {
    block.n = g.n - j < kUpdateBlockColumns<T> ? g.n - j : kUpdateBlockColumns<T>;
    block.b = g.b + j * g.b_col, block.c_row = block.n;
    // Rows of the whole width follow each other: one row for the update.
    const bool whole = g.contiguous_op && block.n == g.n;
    for (index_t i = rows.begin; i < rows.end; i += block.m) {
      block.m = rows.end - i < kUpdateBlockRows ? rows.end - i : kUpdateBlockRows;
      block.a = g.a + i * g.a_row;
      run_panels(block, pack, {0, block.m}, {0, block.n}, 0, g.k, chunk,
                 static_cast<const T*>(nullptr));
      g.op(g.context, block.c, block.n, i, whole ? 1 : block.m, j,
           whole ? block.m * block.n : block.n);
    }
  }
}
