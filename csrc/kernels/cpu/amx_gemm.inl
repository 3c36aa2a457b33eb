// Matrix product on bfloat16 operands by AMX; contract in kernels/args.h, numerics below.
//
// A and B are float32 in memory and are rounded while they are packed (amx_pack.inl). One thread's rectangle of C: k in
// groups of whole chunks, rows in blocks of packed A, columns in panels of packed B, which stay in L2. A part of it is a
// few strips of 32 rows and a slab of 32 columns: chunk by chunk, whose 16 KiB of B stay in L1 while the strips pass, as
// do their sums so far. B is packed once for each block of rows, and once in all where its whole group fits the scratch
// memory.
//
// Numerics: chunk by chunk as of float32 in args.h. A chunk is filled up with zeros to whole steps of 32 values of k;
// TDPBF16PS sums the even ones of a step, and the odd ones, by FMA in order, and adds both to the chunk's sum.

static constexpr int kTileRows[] = {16, 16, 16, 16};

#include "kernels/cpu/tiling.inl"

// Clocks of a thread for a value of k: of a row's products with a vector of columns, of packing one value, which comes
// from L3 or beyond.
static constexpr double kProductClocks = 16.0 / (16 * amx::kTileDepth);
static constexpr double kPackClocks = 0.4;

#include "kernels/cpu/bf16_share.inl"

// Values of k that share a packing: a panel of B is 128 KiB, a strip of A 64.
static constexpr index_t kMaxGroup = 1024;
// Where all panels of a group fit 4 MiB they stay for the next block. A block of A is 1 MiB, half an L2.
static constexpr index_t kPanelPairs = 4096 * 256;
static constexpr index_t kBlockPairs = 1024 * 256;
// Multiply-adds between two questions whether to stop: 100 us.
static constexpr double kStopWork = 1e8;

// Rows that are summed side by side: 16 KiB of sums.
static constexpr index_t kPartRows = 4 * kStripRows;

// A slab's columns in rows that will be needed soon, asked for between the products.
struct Soon {
  struct {
    const float* place;
    index_t row;
  } matrix[4];
  int matrices = 0;
  index_t rows = 0, each = 0;  // in all, between two steps

  void add(const float* place, index_t row) { matrix[matrices++] = {place, row}; }
  FBP_FN void ask() {
    for (index_t r = 0; r < each && rows > 0; ++r, --rows)
      for (int i = 0; i < matrices; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(matrix[i].place), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(matrix[i].place + kLanes), _MM_HINT_T0);
        matrix[i].place += matrix[i].row;
      }
  }
};

// A chunk's products of a strip and a slab.
struct Chunk {
  index_t steps;
  const Pair* a;
  const Pair* b;
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

// 16 or 32 rows by 16 or 32 columns, in tiles 0 to 3; the others hold operands.
template <bool two_rows, bool two_columns> static void sum_tiles(const Chunk& chunk, Soon& soon) {
  constexpr index_t a_bytes = kLanes * index_t(sizeof(Pair)),
                    b_bytes = kSlabColumns * index_t(sizeof(Pair)), half = kStepPairs / 2;
  const index_t bytes = chunk.sums_row * index_t(sizeof(float));
  const Pair *a = chunk.a, *b = chunk.b;
  const float* right = chunk.bias ? chunk.bias + kLanes : nullptr;
  begin_tile<0>(chunk.bias);
  if (two_columns) begin_tile<1>(right);
  if (two_rows) begin_tile<2>(chunk.bias);
  if (two_rows && two_columns) begin_tile<3>(right);
  for (index_t step = 0; step < chunk.steps; ++step, a += kStepPairs, b += kStepPairs) {
    amx::load_tile<6>(b, b_bytes);
    amx::load_tile<4>(a, a_bytes);
    if (two_columns) amx::load_tile<7>(b + kLanes, b_bytes);
    if (two_rows) amx::load_tile<5>(a + half, a_bytes);
    amx::add_products<0, 4, 6>();
    if (two_columns) amx::add_products<1, 4, 7>();
    if (two_rows) amx::add_products<2, 5, 6>();
    if (two_rows && two_columns) amx::add_products<3, 5, 7>();
    soon.ask();
  }
  float* below = chunk.sums + amx::kTileLines * chunk.sums_row;
  amx::store_tile<0>(chunk.sums, bytes);
  if (two_columns) amx::store_tile<1>(chunk.sums + kLanes, bytes);
  if (two_rows) amx::store_tile<2>(below, bytes);
  if (two_rows && two_columns) amx::store_tile<3>(below + kLanes, bytes);
}

// `to` = `before` + sums of `cols` columns, kSlabColumns to a row; or the sums where there is nothing before.
static void add_sums(const float* sums, const float* before, index_t before_row, float* to,
                     index_t to_row, index_t rows, index_t cols) {
  const __mmask16 left = first_lanes(cols), right = first_lanes(cols - kLanes);
  for (index_t i = 0; i < rows; ++i, sums += kSlabColumns, to += to_row) {
    __m512 x = _mm512_loadu_ps(sums), y = _mm512_loadu_ps(sums + kLanes);
    if (before) {
      x = _mm512_add_ps(_mm512_maskz_loadu_ps(left, before), x);
      y = _mm512_add_ps(_mm512_maskz_loadu_ps(right, before + kLanes), y);
      before += before_row;
    }
    _mm512_mask_storeu_ps(to, left, x);
    _mm512_mask_storeu_ps(to + kLanes, right, y);
  }
}

// Chunks of k that are packed together.
struct Group {
  index_t p, k;   // its first value, its values
  index_t chunk;  // values of a chunk; of the last one perhaps fewer
  bool first, last;

  index_t chunks() const { return k > chunk ? parts_of(k, chunk) : 1; }
  index_t depth(index_t c) const { return k - c * chunk < chunk ? k - c * chunk : chunk; }
  // Steps of a chunk, in front of it, of all.
  index_t steps(index_t c) const { return parts_of(depth(c), amx::kTileDepth); }
  index_t steps_before(index_t c) const { return c * parts_of(chunk, amx::kTileDepth); }
  index_t steps() const { return steps_before(chunks() - 1) + steps(chunks() - 1); }
};

// Packed A of some rows of C.
struct Block {
  index_t i, rows;
  Pair* a;
};

static void pack_block(const GemmArgs<float>& g, const Group& group, const Block& block) {
  const auto pack = a_by_columns(g) ? pack_columns_of_a : pack_rows_of_a;
  for (index_t c = 0; c < group.chunks(); ++c)
    pack(g.a + block.i * g.a_row + (group.p + c * group.chunk) * g.a_col,
         a_by_columns(g) ? g.a_col : g.a_row, group.depth(c), block.rows,
         group.steps() * kStepPairs, block.a + group.steps_before(c) * kStepPairs);
}

// Packed B of some columns of C.
struct Panel {
  index_t j, cols;
  Pair* b;

  index_t slabs() const { return parts_of(cols, kSlabColumns); }
};

static void pack_panel(const GemmArgs<float>& g, const Group& group, const Panel& panel) {
  for (index_t c = 0; c < group.chunks(); ++c)
    pack_slabs(g.b + (group.p + c * group.chunk) * g.b_row + panel.j * g.b_col, g.b_row, g.b_col,
               group.depth(c), panel.cols, group.steps() * kStepPairs,
               panel.b + group.steps_before(c) * kStepPairs);
}

// A few strips and one slab: their place in C, packed A and B.
struct Part {
  index_t i, rows, j, cols;
  const Pair* a;
  const Pair* b;
};

// What stays in L1 meanwhile: the sums of the chunks so far; those of a strip and the chunk that is being made.
struct PartMemory {
  alignas(64) float so_far[kPartRows * kSlabColumns];
  alignas(64) float chunk[kStripRows * kSlabColumns];
};

static void sum_strip(const Chunk& chunk, index_t rows, index_t cols, Soon& soon) {
  (rows > amx::kTileLines ? cols > kLanes ? sum_tiles<true, true> : sum_tiles<true, false>
   : cols > kLanes        ? sum_tiles<false, true>
                          : sum_tiles<false, false>)(chunk, soon);
}

// The sums of a part over the group, then `op` where it is not null.
static void run_part(const GemmArgs<float>& g, const Group& group, const Part& part,
                     const float* bias, TileOp<float> op, PartMemory& memory, Soon& soon) {
  const bool in_memory = op && g.discard_c;
  for (index_t c = 0; c < group.chunks(); ++c) {
    const bool first = group.first && c == 0, ends = c + 1 == group.chunks();
    for (index_t i = 0; i < part.rows; i += kStripRows) {
      const index_t rows = part.rows - i < kStripRows ? part.rows - i : kStripRows;
      float* const in_c = g.c + (part.i + i) * g.c_row + part.j;
      float* const so_far = memory.so_far + i * kSlabColumns;
      float* const to = ends && !in_memory ? in_c : so_far;
      const index_t to_row = to == in_c ? g.c_row : kSlabColumns;
      // Tiles write whole vectors, and 16 rows.
      const bool direct =
          first && (to != in_c || (rows % amx::kTileLines == 0 && part.cols % kLanes == 0));
      const index_t step = group.steps_before(c);
      const Chunk chunk{group.steps(c),
                        part.a + (i / kStripRows * group.steps() + step) * kStepPairs,
                        part.b + step * kStepPairs,
                        first ? bias : nullptr,
                        direct ? to : memory.chunk,
                        direct ? to_row : kSlabColumns};
      sum_strip(chunk, rows, part.cols, soon);
      if (!direct)
        add_sums(memory.chunk,
                 first    ? nullptr
                 : c == 0 ? in_c
                          : so_far,
                 c == 0 ? g.c_row : kSlabColumns, to, to_row, rows, part.cols);
    }
  }
  if (op)
    op(g.context, in_memory ? memory.so_far : g.c + part.i * g.c_row + part.j,
       in_memory ? kSlabColumns : g.c_row, part.i, part.rows, part.j, part.cols);
}

// What the part behind this one will need: the one below, or the first one of the panel's next slab.
static Soon needed_soon(const GemmArgs<float>& g, const Group& group, const Block& block,
                        const Panel& panel, const Part& part, bool with_op) {
  const index_t below = block.i + block.rows - part.i - part.rows;
  const index_t i = below > 0 ? part.i + part.rows : block.i;
  const index_t j = below > 0 ? part.j : part.j + kSlabColumns;
  Soon soon;
  if (!group.first || !(with_op && g.discard_c)) soon.add(g.c + i * g.c_row + j, g.c_row);
  if (with_op)
    for (const float* ahead : g.ahead)
      if (ahead) soon.add(ahead + i * g.ahead_row + j, g.ahead_row);
  const index_t rows = below > 0 ? below : j < panel.j + panel.cols ? block.rows : 0;
  soon.rows = rows < kPartRows ? rows : kPartRows;
  const index_t steps = group.steps() * parts_of(part.rows, kStripRows);
  soon.each = steps > 0 ? parts_of(soon.rows, steps) : 0;
  return soon;
}

// Every row of the block by the panel's columns. False: told to stop.
static bool run_panel(const GemmArgs<float>& g, const Group& group, const Block& block,
                      const Panel& panel, double& work) {
  const bool op_waits = op_at_end(g, group.last, panel.cols, kLanes);
  const TileOp<float> op = group.last && !op_waits ? g.op : nullptr;
  PartMemory memory;
  alignas(64) float bias[kNr];
  if (g.bias)
    for (index_t at = 0; at < kNr; at += kLanes)
      _mm512_store_ps(bias + at,
                      _mm512_maskz_loadu_ps(first_lanes(panel.cols - at), g.bias + panel.j + at));
  for (index_t at = 0; at < panel.cols; at += kSlabColumns)
    for (index_t i = 0; i < block.rows; i += kPartRows) {
      Part part;
      part.i = block.i + i;
      part.rows = block.rows - i < kPartRows ? block.rows - i : kPartRows;
      part.j = panel.j + at;
      part.cols = panel.cols - at < kSlabColumns ? panel.cols - at : kSlabColumns;
      part.a = block.a + i / kStripRows * group.steps() * kStepPairs;
      part.b = panel.b + at / kSlabColumns * group.steps() * kStepPairs;
      work += double(part.rows * part.cols) * double(group.k + 16);
      if (g.stop && work > kStopWork) {
        if (g.stop(g.stop_context)) return false;
        work = 0;
      }
      Soon soon = needed_soon(g, group, block, panel, part, op != nullptr);
      run_part(g, group, part, g.bias ? bias + at : nullptr, op, memory, soon);
    }
  if (op_waits) g.op(g.context, g.c + block.i * g.n, g.n, block.i, 1, 0, block.rows * g.n);
  return true;
}

// Pairs of the scratch memory: kept panels or one, a block of A and what its last strip may be short of.
static constexpr index_t kGemmScratch =
    kPanelPairs + kBlockPairs + kMaxGroup / amx::kTileDepth * kStepPairs;

// One thread's rows and columns of C.
static void run_rectangle(const GemmArgs<float>& g, Range rows, Range columns) {
  Pair* const panels = reinterpret_cast<Pair*>(g.scratch);
  Group group;
  group.chunk = g.chunk ? g.chunk : k_chunk(g.k);
  const index_t steps = parts_of(group.chunk, amx::kTileDepth);
  // Groups of equally many chunks, at least one.
  const index_t chunks = g.k > group.chunk ? parts_of(g.k, group.chunk) : 1;
  const index_t each = parts_of(chunks, parts_of(chunks, kMaxGroup / amx::kTileDepth / steps));
  // Blocks of equally many strips.
  const index_t all_rows = rows.end - rows.begin;
  const index_t blocks = parts_of(all_rows, kBlockPairs / (each * steps * kStepPairs) * kStripRows);
  const index_t block_rows = parts_of(parts_of(all_rows, blocks), kStripRows) * kStripRows;
  const index_t slabs = parts_of(columns.end - columns.begin, kSlabColumns);
  const bool keep = blocks > 1 && slabs * each * steps * kStepPairs <= kPanelPairs;
  double work = 0;
  group.p = 0;
  do {
    group.k = g.k - group.p < each * group.chunk ? g.k - group.p : each * group.chunk;
    group.first = group.p == 0;
    group.last = group.p + group.k == g.k;
    for (index_t i = rows.begin; i < rows.end; i += block_rows) {
      const Block block{i, rows.end - i < block_rows ? rows.end - i : block_rows,
                        panels + kPanelPairs};
      pack_block(g, group, block);
      Panel panel;
      panel.b = panels;
      for (panel.j = columns.begin; panel.j < columns.end; panel.j += kNr) {
        panel.cols = columns.end - panel.j < kNr ? columns.end - panel.j : kNr;
        if (!keep || i == rows.begin) pack_panel(g, group, panel);
        if (!run_panel(g, group, block, panel, work)) return;
        if (keep) panel.b += panel.slabs() * group.steps() * kStepPairs;
      }
    }
    group.p += group.k;
  } while (group.p < g.k);
}

static void gemm(const GemmArgs<float>& g, Share share) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.b_panels) return panels_gemm(g, share);
  const GemmSplit parts = share.count == 1 ? GemmSplit{1, 1} : choose_split(g, share.count);
  const Range rows = split(g.m, amx::kTileLines, parts.rows(share));
  const Range columns = split(g.n, kLanes, parts.columns(share));
  if (rows.begin >= rows.end || columns.begin >= columns.end) return;
  amx::set_up_tiles();
  run_rectangle(g, rows, columns);
  amx::release_tiles();
}
