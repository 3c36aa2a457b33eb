// What the matrix products share: the register tiles' sizes and the rectangles of C for a team.
// Included by an instruction set's kernels, behind kTileRows.

// kTileRows[v - 1]: rows of the tile that is v vectors wide; the narrowest has the most.
static constexpr int kTileVectors = int(sizeof(kTileRows) / sizeof(kTileRows[0]));
static constexpr int kMaxTileRows = kTileRows[0];
static constexpr int kFullTileRows = kTileRows[kTileVectors - 1];

// Rows of the tiles in which `columns` of C are made, in vectors of `lanes`.
FBP_FN static index_t tile_rows(index_t columns, int lanes) {
  const index_t vectors = (columns + lanes - 1) / lanes;
  return kTileRows[(vectors < kTileVectors ? vectors : kTileVectors) - 1];
}

// How the team shares C: `row_parts` x `column_parts` rectangles.
struct GemmSplit {
  index_t row_parts;
  index_t column_parts;

  FBP_FN Share rows(Share share) const { return {share.id / column_parts, row_parts}; }
  FBP_FN Share columns(Share share) const { return {share.id % column_parts, column_parts}; }
};

// Whether A is stored by columns.
template <class T> FBP_FN static bool a_by_columns(const GemmArgs<T>& g) {
  return g.a_row == 1 && g.a_col != 1;
}

// Whether `op` gets finished rows all at once, at the end, rather than tile by tile: where C is
// contiguous, and rows with a tail would waste lanes.
template <class T>
FBP_FN static bool op_at_end(const GemmArgs<T>& g, bool last_group, index_t cols, int lanes) {
  return g.op && g.contiguous_op && last_group && cols == g.n && g.c_row == g.n &&
         cols % lanes != 0;
}
