// What the panels of gemm.inl are made of: operands as they lie, or copies of them.

// Rows of A from which a B by rows is copied where a core makes two products a clock, and lines of B that come late cost as much
// as its products: rows that begin within a line make two of each vector, rows pages apart share few sets, and what is beyond L2
// should be read once. `spread`: over more pages than the TLB has.
template <class T> FBP_FN static index_t quick_rows_to_pack(const GemmArgs<T>& g, bool spread) {
  const index_t row = g.b_row * index_t(sizeof(T));
  const bool far = row * g.k > 2 * kNearBytes;
  const bool straddles = (reinterpret_cast<std::uintptr_t>(g.b) | std::uintptr_t(row)) % 64 != 0;
  const auto& rows = row % kSetSpan == 0 && spread ? kQuickRowsToPack.pages
                     : straddles                   ? kQuickRowsToPack.straddling
                                                   : kQuickRowsToPack.aligned;
  return far ? rows.far : rows.near;
}

// Whether B by rows comes from far beyond caches for few rows of A, there too: then long pieces of its rows are packed, of
// several panels and one chunk of k, though C comes and goes more often.
template <class T> FBP_FN static bool is_streamed(const GemmArgs<T>& g) {
  return kWideTiles && g.b_col == 1 && g.m > kFullTileRows && g.m < kMostStreamedRows &&
         g.b_row * g.k * index_t(sizeof(T)) > kFarBytes && g.b_row > kStreamedPanels * kNr<T> &&
         g.k > kMaxChunk && two_products_a_clock();
}

template <class T> FBP_FN static bool must_pack_b(const GemmArgs<T>& g) {
  if (g.b_col != 1 || is_streamed(g)) return true;
  if (!kWideTiles && g.m > kStreamRows && is_by_pages<T>(g, kWalkedBytes)) return true;
  if (g.b_row <= 2 * kNr<T>) return false;
  const index_t bytes = g.b_row * index_t(sizeof(T)) * (g.k < kMaxChunk ? g.k : kMaxChunk);
  const bool spread = bytes > (kWideTiles ? kInPlaceBytes : kNarrowInPlaceBytes);
  if (kWideTiles && two_products_a_clock())
    return (spread || g.k >= kLeastPackedDepth) && g.m >= quick_rows_to_pack(g, spread);
  const index_t tiles = kWideTiles ? kRowTilesToPack : kRowTilesToPackNarrow;
  return spread && g.m >= tiles * kFullTileRows;
}

// A is read in place unless the lines that a tile reads share few sets of the caches: columns of A
// that are pages apart, walked down a whole chunk; or more rows of a tile than a set has ways, at
// multiples of the span of the sets. The first case needs wide tiles, which use a few rows of a line at a
// time, or many narrow ones, beside which even columns that are far less apart push each other out of L1; the
// second, narrow ones: 12 rows in place measured better than packed. Where a core makes two products a clock, columns that are
// less far apart and leave L1 cost more than copies, too.
template <class T> FBP_FN static bool must_pack_a(const GemmArgs<T>& g, index_t columns) {
  const bool transposed = a_by_columns(g);
  if (!kWideTiles)
    return transposed && g.k >= kLeastPackedDepth && columns >= kPackedColumns<T> &&
           g.a_col * index_t(sizeof(T)) >= kSetSpan / 4;
  if (transposed && two_products_a_clock() && g.k >= kLeastPackedDepth && columns >= kNr<T> &&
      g.a_col * index_t(sizeof(T)) >= kSetSpan / 4 &&
      g.m * g.k * index_t(sizeof(T)) >= kNearBytes / 2)
    return true;
  if (g.k <= kMaxChunk) return false;
  if (transposed) return g.a_col * index_t(sizeof(T)) >= kSetSpan && columns >= kNr<T>;
  return g.a_row * index_t(sizeof(T)) % kSetSpan == 0 && columns <= Vec<T>::lanes &&
         kMaxTileRows > kSetWays;
}

// Whether strips of rows of a kernel are updated from end to end, not by panels of columns: where a core makes two products a
// clock, the lines of parameters and slots beyond L2 are what an update waits for, and prefetchers know rows.
template <class T>
FBP_FN static bool is_updated_in_strips(const GemmArgs<T>& g, Range rows, Range columns) {
  if (!kUpdatesGoAlong || g.optimizer < 0 || !g.discard_c || g.stop || g.k > kMaxChunk)
    return false;
  const index_t count = (rows.end - rows.begin) * (columns.end - columns.begin);
  return (1 + optimizer_slots(g.optimizer)) * count * index_t(sizeof(T)) > 4 * kNearBytes &&
         two_products_a_clock();
}
