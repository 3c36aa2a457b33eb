// What the products of bfloat16 share: panels of B, and how a team shares C. Included behind kTileRows, kProductClocks and
// kPackClocks.

static constexpr index_t kNr = kTileVectors * kLanes;

// The split of C among `count` threads that takes one of them the fewest clocks.
static GemmSplit choose_split(const GemmArgs<float>& g, index_t count) {
  const index_t grain = tile_rows(g.n, kLanes);
  const index_t row_tiles = (g.m + grain - 1) / grain;
  const index_t vectors = (g.n + kLanes - 1) / kLanes;
  GemmSplit best{1, 1};
  double best_cost = 0;
  for (index_t row_parts = 1; row_parts <= count; ++row_parts) {
    if (count % row_parts) continue;
    const index_t column_parts = count / row_parts;
    const double rows = double((row_tiles + row_parts - 1) / row_parts * grain);
    const double width = double((vectors + column_parts - 1) / column_parts);
    const double cost = rows * width * kProductClocks + kPackClocks * (rows + width * kLanes);
    if (best_cost == 0 || cost < best_cost) {
      best = {row_parts, column_parts};
      best_cost = cost;
    }
  }
  return best;
}

static void gemm(const GemmArgs<float>& g, Share share);

// B by panels, which are as wide as those of the avx512 kernels: one product for each.
static void panels_gemm(GemmArgs<float> g, Share share) {
  const index_t n = g.n;
  g.b_panels = false, g.b_col = 1;
  for (index_t j = 0; j < n; j += kNr, g.b += g.k * kNr, g.c += kNr) {
    g.n = g.b_row = n - j < kNr ? n - j : kNr;
    gemm(g, share);
    if (g.bias) g.bias += kNr;
  }
}
