// Matrix product on bfloat16 operands with float32 sums; contract in kernels/args.h, numerics below.
//
// A and B are float32 in memory and are rounded while they are packed (bf16_pack.inl). One thread's part: k in groups
// whose panel of B stays in L2, rows in blocks of packed A, columns in panels of kNr, rows in tiles of equal height. B is
// packed once for each block of rows, and once in all where its whole group fits the scratch memory.
//
// Numerics: as of float32 in args.h, chunk by chunk, with two values of k for each VDPBF16PS in the place of two FMAs. A
// chunk is even in length, but for the last.

// Rows of the tile 1, 2, ... vectors wide: blocking.h.
static constexpr int kTileRows[] = {16, 12, 8, 6};

#include "kernels/cpu/tiling.inl"

// Clocks of a thread for a value of k: of a row's products with a vector of columns, of packing one value.
static constexpr double kProductClocks = 0.5;
static constexpr double kPackClocks = 0.25;

#include "kernels/cpu/bf16_share.inl"

// 1024 values of k: a panel of B is 128 KiB, an eighth of a 1 MiB L2, and a tile of A 12 KiB of L1.
static constexpr index_t kMaxGroup = 1024;
// Where all panels of a group fit 512 KiB they stay, and A is packed by pieces of 64 KiB, from which tiles are read while
// they are in L2. Otherwise A is packed by up to 4 MiB, so that packing B again for each costs two percent at most; tiles
// then come from L3, a byte a clock, which the processor fetches ahead by itself.
static constexpr index_t kPanelPairs = 512 * 256;
static constexpr index_t kSmallBlockPairs = 64 * 256;
static constexpr index_t kLargeBlockPairs = 4096 * 256;

struct MicroArgs {
  index_t pairs;
  const Pair* a;
  index_t a_row;  // pairs from one row to the next, where A is packed by rows
  const Pair* b;
  const float* bias;  // null, or where the sum begins (first chunk only)
  const float* sum;   // of the chunks before, to be added; null for the first
  index_t sum_row;
  float* c;
  index_t c_row;
  __mmask16 last;  // lanes of the last vector that C has
  // Places that will be needed soon, up to the first null: asked for row by row between the products, whose loads
  // would wait behind a burst.
  struct Soon {
    const float* place;
    index_t row;
  } soon[5];
};

template <int Vectors> FBP_FN static void ask_for_row(const MicroArgs& args, int i) {
  for (const MicroArgs::Soon* s = args.soon; s->place; ++s) {
    const float* row = s->place + i * s->row;
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      _mm_prefetch(reinterpret_cast<const char*>(row + v * kLanes), _MM_HINT_T0);
  }
}

template <int Rows, int Vectors, bool ByColumns> static void micro_kernel(const MicroArgs& args) {
  __m512 acc[Rows][Vectors];
  const auto lanes_of = [&](int v) { return v == Vectors - 1 ? args.last : __mmask16(0xffff); };
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      acc[i][v] = args.bias ? _mm512_maskz_loadu_ps(lanes_of(v), args.bias + v * kLanes)
                            : _mm512_setzero_ps();
  }
  const Pair* a = args.a;
  const Pair* b = args.b;
  const index_t a_row = ByColumns ? 1 : args.a_row;
  index_t q = 0;
#pragma GCC unroll 1
  for (int part = 1; part <= Rows; ++part) {
    ask_for_row<Vectors>(args, part - 1);
    for (const index_t end = args.pairs * part / Rows; q < end; ++q) {
      __m512bh column[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) column[v] = (__m512bh)_mm512_load_si512(b + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        const __m512bh x = (__m512bh)_mm512_set1_epi32(int(a[i * a_row]));
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) acc[i][v] = _mm512_dpbf16_ps(acc[i][v], x, column[v]);
      }
      a += ByColumns ? Rows : 1;
      b += Vectors * kLanes;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const __mmask16 lanes = lanes_of(v);
      if (args.sum) {
        const float* sum = args.sum + i * args.sum_row + v * kLanes;
        acc[i][v] = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, sum), acc[i][v]);
      }
      _mm512_mask_storeu_ps(args.c + i * args.c_row + v * kLanes, lanes, acc[i][v]);
    }
  }
}

using MicroKernel = void (*)(const MicroArgs&);

// By form of A, vectors and rows.
struct MicroKernels {
  MicroKernel get[2][kTileVectors][kMaxTileRows];

  template <int Rows, int Vectors> constexpr void fill() {
    get[0][Vectors - 1][Rows - 1] = micro_kernel<Rows, Vectors, false>;
    get[1][Vectors - 1][Rows - 1] = micro_kernel<Rows, Vectors, true>;
    if constexpr (Rows > 1)
      fill<Rows - 1, Vectors>();
    else if constexpr (Vectors > 1)
      fill<kTileRows[Vectors - 2], Vectors - 1>();
  }
  constexpr MicroKernels() : get{} { fill<kFullTileRows, kTileVectors>(); }
};
static constexpr MicroKernels kMicroKernels{};

// Multiply-adds between two questions whether to stop: 100 us.
static constexpr double kStopWork = 1e7;

// Rows of C in tiles of equal height: a short last one would leave the units waiting for few sums.
struct Tiles {
  index_t rows, tiles;
  Tiles(index_t all_rows, index_t most) : rows(all_rows), tiles((all_rows + most - 1) / most) {}
  // The next tile's height; 0 at the end.
  index_t next() {
    if (rows == 0) return 0;
    const index_t height = (rows + tiles - 1) / tiles;
    rows -= height;
    --tiles;
    return height;
  }
};

// What a block of rows shares: packed A.
struct Block {
  index_t i, rows;    // of C
  index_t p, p_end;   // this group's part of k
  index_t most_rows;  // of a tile
  bool by_columns;    // form of A
  index_t a_row;      // pairs, by rows
  Pair* a;
};

static void pack_block(const GemmArgs<float>& g, const Block& block) {
  const index_t k = block.p_end - block.p;
  const float* a = g.a + block.i * g.a_row + block.p * g.a_col;
  if (!block.by_columns) {
    pack_rows_of_a(a, g.a_row, k, block.rows, block.a_row, block.a);
    return;
  }
  Tiles tiles(block.rows, block.most_rows);
  Pair* packed = block.a;
  const index_t pairs = (k + 1) / 2;
  index_t height[kBandRows];
  for (index_t next = tiles.next(); next > 0;) {
    int count = 0;
    index_t rows = 0;
    for (; next > 0 && rows + next <= kBandRows; next = tiles.next()) {
      height[count++] = next;
      rows += next;
    }
    pack_band(a, g.a_col, k, rows, height, count, packed);
    packed += rows * pairs + count * kTilePadding;
    a += rows;
  }
}

// Every tile of the block's rows by `cols` columns from j on; B from a packed panel. False: told to stop.
static bool run_panel(const GemmArgs<float>& g, const Block& block, const Pair* panel, index_t j,
                      index_t cols, index_t chunk_pairs) {
  const int vectors = int((cols + kLanes - 1) / kLanes);
  const index_t tail = cols - (vectors - 1) * kLanes;
  const bool first_group = block.p == 0;
  const bool last_group = block.p_end == g.k;
  const bool op_waits = op_at_end(g, last_group, cols, kLanes);
  const bool in_tile = g.discard_c && last_group && !op_waits;
  alignas(64) float scratch_tile[kFullTileRows * kNr];
  const index_t pairs = (block.p_end - block.p + 1) / 2;
  const double tile_work = double(block.most_rows * cols) * double(2 * pairs + 16);
  double work = 0;
  const Pair* a = block.a;
  index_t i = block.i;
  Tiles tiles(block.rows, block.most_rows);
  for (index_t height; (height = tiles.next()) > 0; i += height) {
    if (g.stop && (work += tile_work) > kStopWork) {
      if (g.stop(g.stop_context)) return false;
      work = 0;
    }
    float* c = g.c + i * g.c_row + j;
    MicroArgs micro;
    micro.a_row = block.a_row;
    micro.bias = first_group && g.bias ? g.bias + j : nullptr;
    micro.sum = first_group ? nullptr : c;
    micro.sum_row = g.c_row;
    micro.c = in_tile ? scratch_tile : c;
    micro.c_row = in_tile ? vectors * kLanes : g.c_row;
    micro.last = first_lanes(tail);
    MicroArgs::Soon* soon = micro.soon;
    if (!in_tile || !first_group) *soon++ = {c + height * g.c_row, g.c_row};  // the next tile
    if (last_group && g.op && !op_waits) {
      for (const float* ahead : g.ahead)
        if (ahead) *soon++ = {ahead + i * g.ahead_row + j, g.ahead_row};
    }
    soon->place = nullptr;
    const MicroKernel kernel = kMicroKernels.get[block.by_columns][vectors - 1][height - 1];
    index_t q = 0;
    do {
      micro.pairs = pairs - q < chunk_pairs ? pairs - q : chunk_pairs;
      micro.a = a + q * (block.by_columns ? height : 1);
      micro.b = panel + q * vectors * kLanes;
      kernel(micro);
      micro.bias = nullptr;
      micro.sum = micro.c;
      micro.sum_row = micro.c_row;
      micro.soon[0].place = nullptr;
      q += chunk_pairs;
    } while (q < pairs);
    a += block.by_columns ? height * pairs + kTilePadding : height * block.a_row;
    if (last_group && g.op && !op_waits) g.op(g.context, micro.c, micro.c_row, i, height, j, cols);
  }
  if (op_waits) g.op(g.context, g.c + block.i * g.n, g.n, block.i, 1, 0, block.rows * g.n);
  return true;
}

// Pairs of the scratch memory: kept panels or one, then a block of A.
static constexpr index_t kGemmScratch = kPanelPairs + kLargeBlockPairs;

static void gemm(const GemmArgs<float>& g, Share share) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.b_panels) return panels_gemm(g, share);
  const GemmSplit parts = share.count == 1 ? GemmSplit{1, 1} : choose_split(g, share.count);
  const Range rows = split(g.m, tile_rows(g.n, kLanes), parts.rows(share));
  const Range columns = split(g.n, kLanes, parts.columns(share));
  if (rows.begin >= rows.end || columns.begin >= columns.end) return;
  // Groups of equally many chunks, at least one.
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k);
  const index_t chunks = g.k > chunk ? (g.k + chunk - 1) / chunk : 1, most = kMaxGroup / chunk;
  const index_t groups = most > 1 ? (chunks + most - 1) / most : chunks;
  const index_t group = (chunks + groups - 1) / groups * ((chunk + 1) / 2 * 2);
  const index_t all_rows = rows.end - rows.begin, all_cols = columns.end - columns.begin;
  const index_t width = (all_cols + kLanes - 1) / kLanes * kLanes;
  // A row's pairs, and padding: rows a power of two apart would share the sets of L1.
  const index_t a_row = (group / 2 + kLanes - 1) / kLanes * kLanes + kLanes;
  const bool keep = width * (group / 2) <= kPanelPairs;
  Pair* const panels = reinterpret_cast<Pair*>(g.scratch);
  Block block;
  block.most_rows = tile_rows(all_cols, kLanes);
  block.by_columns = a_by_columns(g);
  block.a_row = a_row;
  block.a = panels + kPanelPairs;
  // Blocks of equal size, in whole tiles. A tile by columns takes no more than its rows by rows, but for short k.
  const index_t capacity = (keep ? kSmallBlockPairs : kLargeBlockPairs) / (a_row + kTilePadding);
  const index_t blocks = (all_rows + capacity - 1) / capacity;
  const index_t block_rows =
      ((all_rows + blocks - 1) / blocks + block.most_rows - 1) / block.most_rows * block.most_rows;
  block.p = 0;
  do {
    block.p_end = g.k - block.p < group ? g.k : block.p + group;
    const index_t depth = block.p_end - block.p;
    for (block.i = rows.begin; block.i < rows.end; block.i += block_rows) {
      block.rows = rows.end - block.i < block_rows ? rows.end - block.i : block_rows;
      pack_block(g, block);
      Pair* panel = panels;
      for (index_t j = columns.begin; j < columns.end; j += kNr) {
        const index_t cols = columns.end - j < kNr ? columns.end - j : kNr;
        const int vectors = int((cols + kLanes - 1) / kLanes);
        if (!keep || block.i == rows.begin)
          pack_panel(g.b + block.p * g.b_row + j * g.b_col, g.b_row, g.b_col, depth, cols, vectors,
                     {vectors * kLanes, 2 * kLanes}, panel);
        if (!run_panel(g, block, panel, j, cols, (chunk + 1) / 2)) return;
        if (keep) panel += (depth + 1) / 2 * vectors * kLanes;
      }
    }
    block.p = block.p_end;
  } while (block.p < g.k);
}
