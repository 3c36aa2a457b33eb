// Matrix product C = A B + bias with an operation on each finished tile; contract and numerics in
// kernels/args.h.
//
// One thread's part: columns in panels of kNr, k in groups of chunks whose panel of B stays in L2,
// rows in tiles of equal height, at most kTileRows. A is read in place, one broadcast at a time; B
// in place or from a packed panel [k][vectors * lanes], zero-padded.

#include "kernels/cpu/tiling.inl"

template <class T> struct MicroArgs {
  index_t k;
  const T* a;
  index_t a_row, a_col;  // one of them is 1
  const T* b;
  index_t b_row;
  T* c;
  index_t c_row;
  const T* bias;         // null, or where the sums start (first chunk only)
  bool first;            // overwrite C; otherwise add to it
  int tail;              // valid lanes of the last vector, for kernels with Tail
  index_t bias_row = 0;  // from the bias of one row to the next; usually they share one
};

// Vector `v` of a row at p; with Masked, vector Last has only `tail` lanes in memory.
template <class V, int Last, bool Masked>
FBP_FN static V load_vector(const typename V::scalar* p, int v, int tail) {
  if (Masked && v == Last) return V::load_n(p + v * V::lanes, tail);
  return V::load(p + v * V::lanes);
}

// Brings a tile of C towards L1 while its sums are made: it was left behind a chunk or more ago.
template <int Rows, int Vectors, class T> FBP_FN static void prefetch(const T* c, index_t c_row) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) __builtin_prefetch(c + i * c_row + v * Vec<T>::lanes, 1);
}

// c (Rows, Vectors * lanes) = or += a (Rows, k) b (k, ...), k in order, in vectors V. Tail: the last vector has only
// `tail` lanes in memory.
template <class V, int Rows, int Vectors, bool ATransposed, bool Tail>
static void micro_kernel(const MicroArgs<typename V::scalar>& args) {
  using T = typename V::scalar;
  constexpr int last = Vectors - 1;
  const int tail = args.tail;
  V acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const T* start = args.bias + (args.bias ? i * args.bias_row : 0);
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      acc[i][v] = args.bias ? load_vector<V, last, Tail>(start, v, tail) : V(T(0));
  }
  const index_t a_row = ATransposed ? 1 : args.a_row;
  const index_t a_col = ATransposed ? args.a_col : 1;
  if (!args.first) prefetch<Rows, Vectors>(args.c, args.c_row);
  const T* a = args.a;
  const T* b = args.b;
  const index_t b_row = args.b_row;
  const auto add = [&] {
    V row[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) row[v] = load_vector<V, last, Tail>(b, v, tail);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const V x(a[i * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) acc[i][v] = fma(x, row[v], acc[i][v]);
    }
    a += a_col, b += b_row;
  };
  index_t k = args.k;
  for (; k >= 2; k -= 2) add(), add();
  if (k > 0) add();
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    T* c = args.c + i * args.c_row;
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      V sum = acc[i][v];
      if (!args.first) sum = load_vector<V, last, Tail>(c, v, tail) + sum;
      if (Tail && v == last)
        sum.store_n(c + v * V::lanes, tail);
      else
        sum.store(c + v * V::lanes);
    }
  }
}

template <class T> using MicroKernel = void (*)(const MicroArgs<T>&);

// The micro-kernels by form of A, right edge, vectors and rows; and those of half a vector.
template <class T> struct MicroKernels {
  MicroKernel<T> get[2][2][kTileVectors][kMaxTileRows];
  MicroKernel<T> half[2][2][kHalfTileRows > 0 ? kHalfTileRows : 1];

  template <int Rows, int Vectors> constexpr void fill() {
    get[0][0][Vectors - 1][Rows - 1] = micro_kernel<Vec<T>, Rows, Vectors, false, false>;
    get[0][1][Vectors - 1][Rows - 1] = micro_kernel<Vec<T>, Rows, Vectors, false, true>;
    get[1][0][Vectors - 1][Rows - 1] = micro_kernel<Vec<T>, Rows, Vectors, true, false>;
    get[1][1][Vectors - 1][Rows - 1] = micro_kernel<Vec<T>, Rows, Vectors, true, true>;
    if constexpr (Rows > 1)
      fill<Rows - 1, Vectors>();
    else if constexpr (Vectors > 1)
      fill<kTileRows[Vectors - 2], Vectors - 1>();
  }
  template <int Rows> constexpr void fill_half() {
    if constexpr (Rows > 0) {
      half[0][0][Rows - 1] = micro_kernel<Narrow<T>, Rows, 1, false, false>;
      half[0][1][Rows - 1] = micro_kernel<Narrow<T>, Rows, 1, false, true>;
      half[1][0][Rows - 1] = micro_kernel<Narrow<T>, Rows, 1, true, false>;
      half[1][1][Rows - 1] = micro_kernel<Narrow<T>, Rows, 1, true, true>;
      fill_half<Rows - 1>();
    }
  }
  constexpr MicroKernels() : get{}, half{} {
    fill<kFullTileRows, kTileVectors>();
    fill_half<kHalfTileRows>();
  }
};
template <class T> static constexpr MicroKernels<T> kMicroKernels{};

// The micro-kernels for panels of `cols` columns, and what they take.
template <class T> struct Tiles {
  const MicroKernel<T>* kernels;  // by rows, from 1
  int most_rows;
  int width;  // of a tile, in columns: a multiple of their vectors' lanes
  int tail;   // valid lanes of the last vector
};
template <class T> FBP_FN static Tiles<T> tiles_for(index_t cols, bool a_transposed) {
  const auto& all = kMicroKernels<T>;
  if constexpr (kHalfTileRows > 0) {
    constexpr int half = Narrow<T>::lanes;
    if (cols <= half) return {all.half[a_transposed][cols < half], kHalfTileRows, half, int(cols)};
  }
  constexpr int lanes = Vec<T>::lanes;
  const int vectors = int(cols + lanes - 1) / lanes, tail = int(cols) - (vectors - 1) * lanes;
  return {all.get[a_transposed][tail < lanes][vectors - 1], kTileRows[vectors - 1], vectors * lanes,
          tail};
}

static constexpr bool kWideTiles = kTileVectors > 1;
static constexpr index_t kStripRows = kWideTiles ? kWideStripRows : kFullTileRows;

template <class T>
static constexpr index_t kNr = kTileVectors * Vec<T>::lanes;  // columns of a panel
// Columns of the panels that are packed at once.
template <class T>
static constexpr index_t kPackedColumns =
    (kPackedRowBytes / index_t(sizeof(T)) + kNr<T> - 1) / kNr<T> * kNr<T>;
// Packed, one after the other: panels of B, a block of A.
template <class T>
static constexpr index_t kPanelScratch = kChunksPerPanel * kMaxChunk * kPackedColumns<T>;
template <class T> static constexpr index_t kPackedBlock = kBlockBytes / index_t(sizeof(T));
template <class T> static constexpr index_t kGemmScratch = kPanelScratch<T> + kPackedBlock<T>;

#include "kernels/cpu/gemm_pack.inl"

// Leaves no more workers than pieces, the first ones: the caller, who need not wake up, among them.
// False for a worker without work.
FBP_FN static bool take_part(Share* share, index_t pieces) {
  if (share->count > pieces) share->count = pieces;
  return share->id < share->count;
}

#include "kernels/cpu/gemm_columns.inl"
#include "kernels/cpu/gemm_dots.inl"
#include "kernels/cpu/gemm_short.inl"
#include "kernels/cpu/gemm_thin.inl"

// Narrower parts of the rows of C than this make the lines of two threads alternate in memory.
static constexpr index_t kFarApart = 1024;  // bytes

// The split whose largest part is smallest, and of those that are nearly so the one that moves less
// between caches. By rows a thread keeps the rows of A and C to itself, from layer to layer; by columns
// its columns of B, and B that is packed is packed once. C that is updated goes by rows where its rows
// are short: lines of two threads that alternate in memory are fetched into the other's cache with
// their neighbours, and taking them back made an update five times as long.
template <class T> static GemmSplit choose_split(const GemmArgs<T>& g, index_t count, bool pack) {
  const index_t grain = tile_rows(g.n, Vec<T>::lanes);
  const index_t row_tiles = (g.m + grain - 1) / grain;
  const index_t vectors = (g.n + Vec<T>::lanes - 1) / Vec<T>::lanes;
  const bool weight_gradient = a_by_columns(g);
  const bool by_rows = weight_gradient ? g.n * index_t(sizeof(T)) < kFarApart * count
                                       : g.m * (g.k + g.n) > 3 * g.k * g.n;
  GemmSplit best{1, 1};
  double best_cost = 0;
  for (index_t i = 1; i <= count; ++i) {
    const index_t column_parts = by_rows ? i : count + 1 - i;
    if (count % column_parts) continue;
    const index_t row_parts = count / column_parts;
    const index_t tiles = (row_tiles + row_parts - 1) / row_parts;
    const index_t width = (vectors + column_parts - 1) / column_parts;
    const double cost = double(width * (tiles * grain + (pack ? grain : 0)));
    if (best_cost == 0 || cost < 0.85 * best_cost) {
      best = {row_parts, column_parts};
      best_cost = cost;
    }
  }
  return best;
}

// Multiply-adds between two questions whether to stop: 3 ms of the scalar kernels, 50 us of AVX-512.
static constexpr double kStopWork = 2e6;

// One column panel of one group of chunks, columns [j, j + cols), and where A is read.
template <class T> struct Panel {
  index_t j, cols;   // columns of C
  index_t p, p_end;  // this group's part of k
  const T* b;        // b(p, j)
  index_t b_row;
  const T* a;  // a(first row, p)
  index_t a_row, a_col;
  index_t a_strip;   // 0, or from one strip of kStripRows rows to the next, each of which is a tile
  index_t all_rows;  // of C that pass this panel before the next
};

#include "kernels/cpu/gemm_update.inl"

template <class T>
static bool run_panel(const GemmArgs<T>& g, const Panel<T>& panel, Range rows, index_t chunk) {
  if (updates_go_along(g, panel, rows)) {
    run_updates(g, panel, rows, chunk);
    return true;
  }
  using V = Vec<T>;
  const bool first_group = panel.p == 0;
  const bool last_group = panel.p_end == g.k;
  const bool op_waits = op_at_end(g, last_group, panel.cols, V::lanes);
  const bool in_tile = g.discard_c && first_group && last_group && !op_waits;
  alignas(64) T scratch_tile[kFullTileRows * kNr<T>];  // narrower tiles are no larger
  const Tiles<T> shape = tiles_for<T>(panel.cols, a_by_columns(g));
  const index_t most_rows = panel.a_strip ? kStripRows : shape.most_rows;
  // Work since `stop` was last asked, in multiply-adds; an operation on a value counts as 16.
  const double tile_work = double(most_rows * panel.cols) * double(panel.p_end - panel.p + 16);
  double work = 0;
  // Tiles of equal height: a short last one would leave the FMA units waiting for few chains.
  const index_t all = rows.end - rows.begin;
  index_t tiles = all <= most_rows ? 1 : (all + most_rows - 1) / most_rows;
  for (index_t i = rows.begin, height; i < rows.end; i += height, --tiles) {
    height = tiles == 1      ? rows.end - i
             : panel.a_strip ? kStripRows
                             : (rows.end - i + tiles - 1) / tiles;
    if (g.stop && (work += tile_work) > kStopWork) {
      if (g.stop(g.stop_context)) return false;
      work = 0;
    }
    MicroArgs<T> micro;
    micro.a_row = panel.a_row;
    micro.a_col = panel.a_col;
    micro.b_row = panel.b_row;
    micro.c = in_tile ? scratch_tile : g.c + i * g.c_row + panel.j;
    micro.c_row = in_tile ? shape.width : g.c_row;
    micro.tail = shape.tail;
    const MicroKernel<T> kernel = shape.kernels[height - 1];
    const T* a = panel.a + (panel.a_strip ? (i - rows.begin) / kStripRows * panel.a_strip
                                          : (i - rows.begin) * panel.a_row);
    index_t p = panel.p;
    do {
      micro.first = p == 0;
      micro.bias = micro.first && g.bias ? g.bias + panel.j : nullptr;
      micro.k = panel.p_end - p < chunk ? panel.p_end - p : chunk;
      micro.a = a + (p - panel.p) * panel.a_col;
      micro.b = panel.b + (p - panel.p) * panel.b_row;
      kernel(micro);
      p += chunk;
    } while (p < panel.p_end);
    if (last_group && g.op && !op_waits)
      g.op(g.context, micro.c, micro.c_row, i, height, panel.j, panel.cols);
  }
  if (op_waits)
    g.op(g.context, g.c + rows.begin * g.n, g.n, rows.begin, 1, 0, (rows.end - rows.begin) * g.n);
  return true;
}

// Whether C is far and its sums so short that writing it counts: then rows of C are written from end to end, not by
// panels of columns. Wide tiles write whole lines, and gain only where writing takes longer than the sums and all of B,
// of the columns `columns`, stays in L2, packed or not.
template <class T> FBP_FN static bool is_outer_product(const GemmArgs<T>& g, Range columns) {
  if (g.m * g.n * index_t(sizeof(T)) < kOuterBytes) return false;
  if (!kWideTiles) return g.k <= (a_by_columns(g) ? kOuterDepth : kNarrowOuterDepth);
  return g.k <= kOuterDepth && g.k * (columns.end - columns.begin + kNr<T>) <= kPanelScratch<T>;
}

#include "kernels/cpu/gemm_choice.inl"

// The panels of B from column j on, up to `end`, one after the other.
template <class T>
static void pack_panels(const GemmArgs<T>& g, index_t j, index_t end, index_t p, index_t p_end,
                        T* to) {
  const index_t k = p_end - p;
  if (g.b_col == 1) return pack_rows(g.b + p * g.b_row + j, g.b_row, k, end - j, to);
  for (; j < end; j += kNr<T>, to += kNr<T> * k) {
    const index_t cols = end - j < kNr<T> ? end - j : kNr<T>;
    pack_columns(g.b + p * g.b_row + j * g.b_col, g.b_col, k, cols, panel_width<T>(cols), to);
  }
}

// The panel of B from column j on, and where A is read; `packed`: null, or that panel, packed.
template <class T>
static Panel<T> make_panel(const GemmArgs<T>& g, Range columns, index_t j, index_t p, index_t p_end,
                           const T* packed) {
  const index_t cols = columns.end - j < kNr<T> ? columns.end - j : kNr<T>;
  Panel<T> panel{
      j,       cols,    p, p_end, g.b + p * g.b_row + j * g.b_col, g.b_row, g.a + p * g.a_col,
      g.a_row, g.a_col, 0, g.m};
  if (packed) panel.b = packed, panel.b_row = panel_width<T>(cols);
  if (g.b_panels) panel.b = g.b + j * g.k + p * cols, panel.b_row = cols;
  return panel;
}

// As many panels as fit the scratch, packed before; strips of rows, each through all of them.
template <class T>
static bool run_strips(const GemmArgs<T>& g, bool pack, Range rows, Range columns, index_t strip,
                       index_t chunk) {
  const index_t most = kPanelScratch<T> / (g.k > 0 ? g.k : 1) / kNr<T> * kNr<T>;
  for (index_t begin = columns.begin, end; begin < columns.end; begin = end) {
    end = columns.end - begin < most ? columns.end : begin + most;
    if (pack) pack_panels(g, begin, end, 0, g.k, g.scratch);
    for (index_t i = rows.begin; i < rows.end; i += strip) {
      const Range part{i, rows.end - i < strip ? rows.end : i + strip};
      for (index_t j = begin; j < end; j += kNr<T>) {
        const T* packed = pack ? g.scratch + (j - begin) * g.k : nullptr;
        Panel<T> panel = make_panel(g, {begin, end}, j, 0, g.k, packed);
        panel.a += i * g.a_row;
        if (!run_panel(g, panel, part, chunk)) return false;
      }
    }
  }
  return true;
}

// Every column panel of one group of chunks; `block`: the rows of A in it, packed.
template <class T>
static bool run_panels(const GemmArgs<T>& g, bool pack, Range rows, Range columns, index_t p,
                       index_t p_end, index_t chunk, const T* block) {
  const bool a_transposed = a_by_columns(g);
  const index_t k = p_end - p, strip = block && kWideTiles ? kStripRows : rows.end - rows.begin;
  const index_t at_once = is_streamed(g) ? kStreamedPanels * kNr<T> : kPackedColumns<T>;
  for (index_t j = columns.begin; j < columns.end; j += kNr<T>) {
    const index_t column = (j - columns.begin) % at_once;
    if (pack && column == 0) {
      const bool last = columns.end - j <= at_once;
      pack_panels(g, j, last ? columns.end : j + at_once, p, p_end, g.scratch);
    }
    Panel<T> panel = make_panel(g, columns, j, p, p_end, pack ? g.scratch + column * k : nullptr);
    panel.all_rows = rows.end - rows.begin;
    const T* a = panel.a;
    if (block) {
      (a_transposed ? panel.a_col : panel.a_row) = a_transposed ? kStripRows : k;
      if (!kWideTiles) panel.a_strip = kStripRows * k;
    }
    for (index_t i = rows.begin; i < rows.end; i += strip) {
      panel.a = block ? block + (i - rows.begin) * k : a + i * g.a_row;
      const Range part{i, rows.end - i < strip ? rows.end : i + strip};
      if (!run_panel(g, panel, part, chunk)) return false;
    }
  }
  return true;
}

// The same with A packed, as many rows at a time as stay in L2 while every column panel passes.
template <class T>
static bool run_blocks(const GemmArgs<T>& g, bool pack, Range rows, Range columns, index_t p,
                       index_t p_end, index_t chunk) {
  const index_t k = p_end - p;
  const index_t most = kPackedBlock<T> / k / kStripRows * kStripRows;
  T* block = g.scratch + kPanelScratch<T>;
  for (index_t i = rows.begin, height; i < rows.end; i += height) {
    height = rows.end - i < most ? rows.end - i : most;
    pack_block(g.a + i * g.a_row + p * g.a_col, g.a_row, g.a_col, k, height, block);
    if (!run_panels(g, pack, {i, i + height}, columns, p, p_end, chunk, block)) return false;
  }
  return true;
}

// A chunk of a narrow panel stays in L1 from one tile of rows to the next.
template <class T> static void panels_gemm(const GemmArgs<T>& g, Share share) {
  const Range columns = split(g.n, kNr<T>, share);
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k);
  const index_t group = kWideTiles ? chunk * kChunksPerPanel : chunk;
  index_t p = 0;
  do {
    const index_t p_end = g.k - p < group ? g.k : p + group;
    for (index_t j = columns.begin; j < columns.end; j += kNr<T>) {
      const Panel<T> panel = make_panel(g, columns, j, p, p_end, static_cast<const T*>(nullptr));
      if (!run_panel(g, panel, {0, g.m}, chunk)) return;
    }
    p = p_end;
  } while (p < g.k);
}

#include "kernels/cpu/gemm_update_rows.inl"

// Chunks of k that pass the panels at a time. Narrow tiles read pieces of the lines of an A by columns, in place; all of
// its rows in k must stay in L2 from panel to panel.
template <class T> FBP_FN static index_t chunks_at_once(const GemmArgs<T>& g, bool pack_block) {
  if (is_streamed(g)) return 1;
  if (pack_block) return kChunksPerBlock;
  return !kWideTiles && a_by_columns(g) ? 1 : kChunksPerPanel;
}

template <class T> static void gemm(const GemmArgs<T>& g, Share share) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.b_panels) return panels_gemm(g, share);
  if (is_short(g)) return short_gemm(g, share);
  if (is_dots(g)) return dots_gemm(g, share);
  const ThinForm form = thin_form(g);
  if (form != ThinForm::none) return thin_gemm(g, form == ThinForm::columns, share);
  const index_t height = tile_rows(g.n, Vec<T>::lanes);
  if (share.count > 1) {
    const index_t vectors = (g.n + Vec<T>::lanes - 1) / Vec<T>::lanes;
    if (!take_part(&share, (g.m + height - 1) / height * vectors)) return;
  }
  const bool pack = must_pack_b(g);
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k);
  if (is_updated_by_rows(g)) return run_updated_rows(g, pack, split(g.m, height, share), chunk);
  const GemmSplit parts = share.count == 1 ? GemmSplit{1, 1} : choose_split(g, share.count, pack);
  const Range rows = split(g.m, height, parts.rows(share));
  const Range columns = split(g.n, Vec<T>::lanes, parts.columns(share));
  if (rows.begin >= rows.end) return;
  const index_t strip = is_updated_in_strips(g, rows, columns) ? kWideStripRows
                        : is_outer_product(g, columns)         ? kOuterRows
                                                               : 0;
  if (strip > 0) {
    run_strips(g, pack, rows, columns, strip, chunk);
    return;
  }
  const bool pack_block = must_pack_a(g, columns.end - columns.begin);
  const index_t group = chunk * chunks_at_once(g, pack_block);
  index_t p = 0;
  do {
    const index_t p_end = g.k - p < group ? g.k : p + group;
    if (pack_block
            ? !run_blocks(g, pack, rows, columns, p, p_end, chunk)
            : !run_panels(g, pack, rows, columns, p, p_end, chunk, static_cast<const T*>(nullptr)))
      return;
    p = p_end;
  } while (p < g.k);
}
