// Matrix product on bfloat16 operands by AMX; contract in kernels/args.h, numerics below.
//
// A and B are float32 in memory and are rounded while they are packed (bf16_pack.inl). One thread's part: k in groups of
// whole chunks, rows in blocks of packed A that stay in L2, columns in panels of kNr. A chunk of a panel (32 KiB) is
// read from L1 while all rows of the block pass, two tiles of 16 at a time. B is packed once for each block of rows, and
// once in all where its whole group fits the scratch memory.
//
// Numerics: chunk by chunk as of float32 in args.h. A chunk is filled up with zeros to whole tiles of 32 values of k;
// TDPBF16PS sums the even ones of a tile, and the odd ones, by FMA in order, and adds both to the chunk's sum.

static constexpr int kTileRows[] = {16, 16, 16, 16};

#include "kernels/cpu/tiling.inl"

// Clocks of a thread for a value of k: of a row's products with a vector of columns, of packing one value, which comes
// from L3 or beyond.
static constexpr double kProductClocks = 16.0 / (16 * amx::kTileDepth);
static constexpr double kPackClocks = 0.4;

#include "kernels/cpu/bf16_share.inl"

// Values of k that share a packing: a panel of B is 128 KiB, a tile of A 32.
static constexpr index_t kMaxGroup = 1024;
// Where all panels of a group fit 4 MiB they stay. A block of A is 1 MiB, half an L2.
static constexpr index_t kPanelPairs = 4096 * 256;
static constexpr index_t kBlockPairs = 1024 * 256;
// Multiply-adds between two questions whether to stop: 100 us.
static constexpr double kStopWork = 1e8;
// Rows that go through the tiles together.
static constexpr index_t kStripRows = 2 * amx::kTileLines;

// Columns of A are contiguous in the rows: value (i, p) at a[i + p * a_col]. 16 rows by 16 pairs are transposed in
// registers; four such blocks side by side, for rows of A^T are often a page apart.
static void pack_columns_of_a(const float* a, index_t a_col, index_t k, index_t rows,
                              index_t stride, Pair* packed) {
  const __m512i interleaved = _mm512_load_si512(kInterleaved);
  const index_t pairs = (k + 1) / 2;
  for (index_t band = 0; band < rows; band += kNr) {
    const index_t band_end = rows - band < kNr ? rows : band + kNr;
    for (index_t q = 0; q < pairs; q += kLanes) {
      for (index_t i = band; i < band_end; i += kLanes) {
        const __mmask16 there = first_lanes(rows - i);
        Words block[kLanes];
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) {
          const index_t p = 2 * (q + r);
          const float* even = a + p * a_col + i;
          _mm_prefetch(reinterpret_cast<const char*>(even + 2 * kLanes * a_col), _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(even + (2 * kLanes + 1) * a_col), _MM_HINT_T0);
          const __m512 x = p < k ? _mm512_maskz_loadu_ps(there, even) : _mm512_setzero_ps();
          const __m512 y =
              p + 1 < k ? _mm512_maskz_loadu_ps(there, even + a_col) : _mm512_setzero_ps();
          block[r].v = _mm512_castsi512_ps(pairs_of_rows(x, y, interleaved));
        }
        transpose(block);
        Pair* row = packed + i * stride + q;
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r)
          if (i + r < rows) _mm512_store_ps(row + r * stride, block[r].v);
      }
    }
  }
}

// Tiles 0 to 3 hold sums, the others operands.
struct Operands {
  index_t steps;  // of kTileDepth values of k
  const Pair* a;
  index_t a_row;
  const Pair* b;
  index_t b_row;
  const float* bias;  // where the sums begin; null: 0
  float* sums;
  index_t sums_row;
};

template <int tile> FBP_FN static void begin_tile(const float* bias) {
  if (bias)
    amx::load_tile<tile>(bias, 0);
  else
    amx::clear_tile<tile>();
}

// 16 or 32 rows by 16 or 32 columns.
template <bool two_rows, bool two_columns> static void sum_tiles(const Operands& args) {
  const index_t a_bytes = args.a_row * index_t(sizeof(Pair)),
                b_bytes = args.b_row * index_t(sizeof(Pair)),
                sums_bytes = args.sums_row * index_t(sizeof(float));
  const Pair *a = args.a, *b = args.b, *lower = a + amx::kTileLines * args.a_row;
  const float* right = args.bias ? args.bias + kLanes : nullptr;
  begin_tile<0>(args.bias);
  if (two_columns) begin_tile<1>(right);
  if (two_rows) begin_tile<2>(args.bias);
  if (two_rows && two_columns) begin_tile<3>(right);
  for (index_t step = 0; step < args.steps; ++step) {
    amx::load_tile<6>(b, b_bytes);
    amx::load_tile<4>(a, a_bytes);
    if (two_columns) amx::load_tile<7>(b + kLanes, b_bytes);
    if (two_rows) amx::load_tile<5>(lower, a_bytes);
    amx::add_products<0, 4, 6>();
    if (two_columns) amx::add_products<1, 4, 7>();
    if (two_rows) amx::add_products<2, 5, 6>();
    if (two_rows && two_columns) amx::add_products<3, 5, 7>();
    a += kLanes, lower += kLanes;
    b += kLanes * args.b_row;
  }
  float* below = args.sums + amx::kTileLines * args.sums_row;
  amx::store_tile<0>(args.sums, sums_bytes);
  if (two_columns) amx::store_tile<1>(args.sums + kLanes, sums_bytes);
  if (two_rows) amx::store_tile<2>(below, sums_bytes);
  if (two_rows && two_columns) amx::store_tile<3>(below + kLanes, sums_bytes);
}

// A chunk's sums of up to 32 rows and kNr columns.
static void sum_strip(Operands args, index_t rows, index_t cols) {
  const bool two_rows = rows > amx::kTileLines;
  for (index_t j = 0; j < cols; j += 2 * kLanes) {
    const bool two_columns = cols - j > kLanes;
    (two_rows ? two_columns ? sum_tiles<true, true> : sum_tiles<true, false>
     : two_columns ? sum_tiles<false, true>
                   : sum_tiles<false, false>)(args);
    args.b += 2 * kLanes;
    args.sums += 2 * kLanes;
    if (args.bias) args.bias += 2 * kLanes;
  }
}

// `to` = `before` + the tiles' sums, or the sums where there is nothing before.
static void add_strip(const float* sums, const float* before, index_t before_row, float* to,
                      index_t to_row, index_t rows, index_t cols) {
  for (index_t i = 0; i < rows; ++i, sums += kNr, to += to_row) {
    for (index_t j = 0; j < cols; j += kLanes) {
      const __mmask16 there = first_lanes(cols - j);
      __m512 sum = _mm512_load_ps(sums + j);
      if (before) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(there, before + i * before_row + j), sum);
      _mm512_mask_storeu_ps(to + j, there, sum);
    }
  }
}

// Chunks of k: of a group, of the last one perhaps fewer.
struct Group {
  index_t p, k;    // its first value, its values
  index_t chunk;   // values of a chunk
  index_t pairs;   // of a chunk, to whole tiles
  bool first, last;

  index_t chunks() const { return k > chunk ? parts_of(k, chunk) : 1; }
  index_t depth(index_t c) const { return k - c * chunk < chunk ? k - c * chunk : chunk; }
};

// Packed A of some rows: [chunk][row][pairs].
struct Block {
  index_t i, rows;  // of C
  Pair* a;
};

static void pack_block(const GemmArgs<float>& g, const Group& group, const Block& block) {
  for (index_t c = 0; c < group.chunks(); ++c) {
    const float* a = g.a + block.i * g.a_row + (group.p + c * group.chunk) * g.a_col;
    Pair* packed = block.a + c * block.rows * group.pairs;
    if (a_by_columns(g))
      pack_columns_of_a(a, g.a_col, group.depth(c), block.rows, group.pairs, packed);
    else
      pack_rows_of_a(a, g.a_row, group.depth(c), block.rows, group.pairs, packed);
  }
}

// Packed B of up to kNr columns: [chunk][pair][column], filled up to whole tiles.
static void pack_panels(const GemmArgs<float>& g, const Group& group, index_t j, index_t cols,
                        Pair* panel) {
  const int vectors = int((cols + kLanes - 1) / kLanes);
  for (index_t c = 0; c < group.chunks(); ++c, panel += group.pairs * vectors * kLanes) {
    const index_t depth = group.depth(c);
    pack_panel(g.b + (group.p + c * group.chunk) * g.b_row + j * g.b_col, g.b_row, g.b_col, depth,
               cols, vectors, panel);
    for (index_t at = (depth + 1) / 2 * vectors; at < parts_of(depth, amx::kTileDepth) * kLanes * vectors; ++at)
      _mm512_store_si512(panel + at * kLanes, _mm512_setzero_si512());
  }
}

// Every row of the block by `cols` columns from j on, chunk by chunk. False: told to stop.
static bool run_panel(const GemmArgs<float>& g, const Group& group, const Block& block,
                      const Pair* panel, index_t j, index_t cols) {
  const index_t width = parts_of(cols, kLanes) * kLanes;
  const bool op_waits = op_at_end(g, group.last, cols, kLanes);
  alignas(64) float scratch[kStripRows * kNr], bias[kNr];
  if (g.bias)
    for (index_t at = 0; at < width; at += kLanes)
      _mm512_store_ps(bias + at, _mm512_maskz_loadu_ps(first_lanes(cols - at), g.bias + j + at));
  double work = 0;
  for (index_t c = 0; c < group.chunks(); ++c) {
    const bool first = group.first && c == 0, last = group.last && c + 1 == group.chunks();
    const bool in_scratch = g.discard_c && last && !op_waits;
    Operands args;
    args.steps = parts_of(group.depth(c), amx::kTileDepth);
    args.a = block.a + c * block.rows * group.pairs;
    args.a_row = group.pairs;
    args.b = panel + c * group.pairs * width;
    args.b_row = width;
    args.bias = first && g.bias ? bias : nullptr;
    index_t rows;
    for (index_t i = 0; i < block.rows; i += rows, args.a += rows * args.a_row) {
      rows = block.rows - i < kStripRows ? block.rows - i : kStripRows;
      if (g.stop && (work += double(rows * cols) * double(group.depth(c) + 16)) > kStopWork) {
        if (g.stop(g.stop_context)) return false;
        work = 0;
      }
      float* const place = g.c + (block.i + i) * g.c_row + j;
      float* const to = in_scratch ? scratch : place;
      const index_t to_row = in_scratch ? kNr : g.c_row;
      const bool whole = rows % amx::kTileLines == 0 && cols % kLanes == 0;
      const bool direct = first && (whole || in_scratch);
      args.sums = direct ? to : scratch;
      args.sums_row = direct ? to_row : kNr;
      sum_strip(args, rows, cols);
      if (!direct) add_strip(scratch, first ? nullptr : place, g.c_row, to, to_row, rows, cols);
      if (last && g.op && !op_waits)
        g.op(g.context, to, to_row, block.i + i, rows, j, cols);
    }
  }
  if (op_waits) g.op(g.context, g.c + block.i * g.n, g.n, block.i, 1, 0, block.rows * g.n);
  return true;
}

// Pairs of the scratch memory: kept panels or one, then a block of A, whose last tile may reach behind its last row.
static constexpr index_t kGemmScratch = kPanelPairs + kBlockPairs + kStripRows * kMaxGroup / 2;

// One thread's part. False: told to stop.
static bool run_part(const GemmArgs<float>& g, Range rows, Range columns) {
  Pair* const panels = reinterpret_cast<Pair*>(g.scratch);
  Group group;
  group.chunk = g.chunk ? g.chunk : k_chunk(g.k);
  group.pairs = parts_of(group.chunk, amx::kTileDepth) * kLanes;
  // Groups of equally many chunks, at least one.
  const index_t chunks = g.k > group.chunk ? parts_of(g.k, group.chunk) : 1;
  const index_t most = kMaxGroup / 2 / group.pairs;
  const index_t each = most > 1 ? parts_of(chunks, parts_of(chunks, most)) : 1;
  const index_t width = parts_of(columns.end - columns.begin, kLanes) * kLanes;
  const bool keep = width * each * group.pairs <= kPanelPairs;
  // Blocks of equally many tiles.
  const index_t all_rows = rows.end - rows.begin;
  const index_t blocks = parts_of(all_rows, kBlockPairs / (each * group.pairs));
  const index_t block_rows = parts_of(parts_of(all_rows, blocks), kStripRows) * kStripRows;
  group.p = 0;
  do {
    group.k = g.k - group.p < each * group.chunk ? g.k - group.p : each * group.chunk;
    group.first = group.p == 0;
    group.last = group.p + group.k == g.k;
    for (index_t i = rows.begin; i < rows.end; i += block_rows) {
      const Block block{i, rows.end - i < block_rows ? rows.end - i : block_rows,
                        panels + kPanelPairs};
      pack_block(g, group, block);
      Pair* panel = panels;
      for (index_t j = columns.begin; j < columns.end; j += kNr) {
        const index_t cols = columns.end - j < kNr ? columns.end - j : kNr;
        if (!keep || i == rows.begin) pack_panels(g, group, j, cols, panel);
        if (!run_panel(g, group, block, panel, j, cols)) return false;
        if (keep) panel += group.chunks() * group.pairs * parts_of(cols, kLanes) * kLanes;
      }
    }
    group.p += group.k;
  } while (group.p < g.k);
  return true;
}

static void gemm(const GemmArgs<float>& g, Share share) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.b_panels) return panels_gemm(g, share);
  const GemmSplit parts = share.count == 1 ? GemmSplit{1, 1} : choose_split(g, share.count);
  const Range rows = split(g.m, amx::kTileLines, parts.rows(share));
  const Range columns = split(g.n, kLanes, parts.columns(share));
  if (rows.begin >= rows.end || columns.begin >= columns.end) return;
  amx::set_up_tiles();
  run_part(g, rows, columns);
  amx::release_tiles();
}
