// Networks of narrow dense layers (kernels/small_network.h), and the gathering of rows. The sums are
// those of gemm.inl, element by element.

// One panel of columns of a product, summed in chunks; `micro` has all but k, a, b, c of the tile.
template <class T>
FBP_FN static void small_panel(MicroArgs<T> micro, index_t m, index_t k, index_t cols,
                               index_t chunk, bool a_transposed) {
  const Tiles<T> shape = tiles_for<T>(cols, a_transposed);
  micro.tail = shape.tail;
  const auto kernels = shape.kernels;
  const int most = shape.most_rows;
  if (m <= most && k <= chunk) return kernels[m - 1](micro);
  const index_t a_row = a_transposed ? 1 : micro.a_row, a_col = a_transposed ? micro.a_col : 1;
  const MicroArgs<T> first = micro;
  int left = int(m), tiles = (left + most - 1) / most;
  for (index_t i = 0, height; left > 0; i += height, left -= int(height), --tiles) {
    height = (left + tiles - 1) / tiles;
    micro.c = first.c + i * first.c_row;
    micro.a = first.a + i * a_row;
    micro.b = first.b;
    micro.bias = first.bias;
    micro.first = true;
    for (index_t p = 0; p < k; p += chunk) {
      micro.k = k - p < chunk ? k - p : chunk;
      kernels[height - 1](micro);
      micro.a += chunk * a_col;
      micro.b += chunk * micro.b_row;
      micro.bias = nullptr;
      micro.first = false;
    }
  }
}

// The product of a tile's arguments, m rows and n columns of C, summed in chunks.
template <class T, bool ATransposed>
static void small_tiles(const MicroArgs<T>& product, index_t m, index_t n, index_t chunk) {
  MicroArgs<T> panel = product;
  for (index_t j = 0; j < n; j += kNr<T>) {
    small_panel(panel, m, product.k, n - j < kNr<T> ? n - j : kNr<T>, chunk, ATransposed);
    panel.b += kNr<T>;
    panel.c += kNr<T>;
    if (panel.bias) panel.bias += kNr<T>;
  }
}

static constexpr int kFewOutputs = int(kMostInterleaved);

// panel[p][j] = b[j * k + p] for j < cols: a few rows of a matrix with k columns, transposed.
template <class T>
static void transpose_rows(const T* b, index_t k, index_t cols, index_t width, T* panel) {
  constexpr int lanes = Vec<T>::lanes;
  if (k <= kFewOutputs && width == cols) return deinterleave_few(b, k, cols, panel, width);
  Vec<T> block[lanes];
  for (index_t j = 0; j < width; j += lanes) {
    for (index_t p = 0; p < k; p += lanes) {
      load_columns(b + j * k + p, k, k - p, cols - j, block);
#pragma GCC unroll 16
      for (int q = 0; q < lanes; ++q)
        if (q < k - p) block[q].store(panel + (p + q) * width + j);
    }
  }
}

// z of a stage with Outputs outputs: lanes are rows of the batch, whose inputs are transposed in
// registers.
template <class T, int Outputs>
static void few_outputs(const SmallStage<T>& s, const T* w, index_t rows) {
  using V = Vec<T>;
  constexpr int lanes = V::lanes;
  for (index_t i = 0; i < rows; i += lanes) {
    const int count = int(rows - i < lanes ? rows - i : lanes);
    V sum[Outputs], block[lanes];
    for (int o = 0; o < Outputs; ++o) sum[o] = V(s.bias ? w[s.inputs * Outputs + o] : T(0));
    const auto add = [&](index_t p, int q) {
      for (int o = 0; o < Outputs; ++o) sum[o] = fma(V(w[(p + q) * Outputs + o]), block[q], sum[o]);
    };
    V before[Outputs];  // the chunks that are complete
    for (int o = 0; o < Outputs; ++o) before[o] = V(T(0));
    for (index_t p = 0; p < s.inputs; p += lanes) {
      if (p > 0 && p % s.input_chunk == 0) {
        for (int o = 0; o < Outputs; ++o) {
          before[o] = p > s.input_chunk ? before[o] + sum[o] : sum[o];
          sum[o] = V(T(0));
        }
      }
      load_columns(s.x + i * s.x_row + p, s.x_row, s.inputs - p, count, block);
      if (s.inputs - p >= lanes) {
#pragma GCC unroll 16
        for (int q = 0; q < lanes; ++q) add(p, q);
      } else {
#pragma GCC unroll 16
        for (int q = 0; q < lanes; ++q)
          if (q < s.inputs - p) add(p, q);
      }
    }
    if (s.inputs > s.input_chunk)
      for (int o = 0; o < Outputs; ++o) sum[o] = before[o] + sum[o];
    T* z = s.z + i * s.z_row;
    if (Outputs == 1 && s.z_row == 1) {
      sum[0].store_n(z, count);
      continue;
    }
    alignas(64) T column[Outputs * lanes];
    for (int o = 0; o < Outputs; ++o) sum[o].store(column + o * lanes);
    if (s.z_row == Outputs) {
      interleave<Outputs>(column, lanes, count, z);
      continue;
    }
    for (int r = 0; r < count; ++r)
      for (int o = 0; o < Outputs; ++o) z[r * s.z_row + o] = column[o * lanes + r];
  }
}

// The same where vectors are no registers.
template <class T, int Outputs>
static void few_outputs_by_lanes(const SmallStage<T>& s, const T* w, index_t rows) {
  using V = Lane<T>;
  for (index_t i = 0; i < rows; ++i) {
    const T* x = s.x + i * s.x_row;
    for (int o = 0; o < Outputs; ++o) {
      V total(s.bias ? w[s.inputs * Outputs + o] : T(0));
      for (index_t begin = 0; begin < s.inputs; begin += s.input_chunk) {
        const index_t end = s.inputs - begin < s.input_chunk ? s.inputs : begin + s.input_chunk;
        V sum = begin == 0 ? total : V(T(0));
        for (index_t p = begin; p < end; ++p) sum = fma(V(w[p * Outputs + o]), V(x[p]), sum);
        total = begin == 0 ? sum : total + sum;
      }
      s.z[i * s.z_row + o] = total.v;
    }
  }
}

template <class T> struct FewOutputs {
  void (*get[kFewOutputs])(const SmallStage<T>&, const T*, index_t);

  template <int Outputs> constexpr void fill() {
    if constexpr (kVectorsAreRegisters)
      get[Outputs - 1] = few_outputs<T, Outputs>;
    else
      get[Outputs - 1] = few_outputs_by_lanes<T, Outputs>;
    if constexpr (Outputs > 1) fill<Outputs - 1>();
  }
  constexpr FewOutputs() : get{} { fill<kFewOutputs>(); }
};
template <class T> static constexpr FewOutputs<T> kFewOutputsKernels{};

// How many of the rows a product and the operation on it take at once: 16 KiB, half of L1, of C.
template <class T> FBP_FN static index_t rows_at_once(index_t rows, index_t cols) {
  constexpr index_t values = 16384 / index_t(sizeof(T));
  return rows * cols <= values ? rows : values / cols;
}

template <class T>
static void small_forward(const SmallNetwork<T>& net, index_t rows, Range stages) {
  for (index_t i = stages.begin; i < stages.end; ++i) {
    const SmallStage<T>& s = net.stage[i];
    const T* w = net.w + s.parameter_offset;
    const bool few = s.outputs <= kFewOutputs && 2 * rows >= Vec<T>::lanes;
    const index_t most = few ? rows : rows_at_once<T>(rows, s.outputs);
    MicroArgs<T> micro{s.inputs, s.x, s.x_row, 1, w, s.outputs, s.z, s.z_row, nullptr, true, 0};
    if (s.bias) micro.bias = w + s.inputs * s.outputs;
    const ActivationTile<T> tile{nullptr, 0, s.y, s.y_row, s.param};
    for (index_t r = 0; r < rows; r += most) {
      const index_t count = rows - r < most ? rows - r : most;
      micro.a = s.x + r * s.x_row;
      micro.c = s.z + r * s.z_row;
      if (few)
        kFewOutputsKernels<T>.get[s.outputs - 1](s, w, rows);
      else
        small_tiles<T, false>(micro, count, s.outputs, s.input_chunk);
      if (s.forward) s.forward(&tile, micro.c, s.z_row, r, count, 0, s.outputs);
    }
  }
}

// dW = (x, 1)^T dz, summed in chunks of the rows.
template <class T>
static void small_gradient(const SmallStage<T>& s, index_t rows, index_t chunk, T* gradient,
                           T* scratch) {
  const index_t inputs = s.inputs + (s.bias ? 1 : 0);
  if (s.outputs > kFewOutputs || inputs <= s.outputs) {
    small_tiles<T, true>(
        {rows, s.x, 1, s.x_row, s.dz, s.dz_row, gradient, s.outputs, nullptr, true, 0}, inputs,
        s.outputs, chunk);
    return;
  }
  // Transposed, so that the lanes are inputs.
  const bool in_place = s.outputs == 1;
  T* c = in_place ? gradient : scratch;
  small_tiles<T, true>({rows, s.dz, 1, s.dz_row, s.x, s.x_row, c, inputs, nullptr, true, 0},
                       s.outputs, inputs, chunk);
  if (in_place) return;
  interleave_few(c, inputs, s.outputs, inputs, gradient);
}

// dz of the stage below: dz W^T times the derivative of its activation.
template <class T>
static void small_delta(const SmallStage<T>& s, const SmallStage<T>& below, const T* w,
                        index_t rows, T* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  const ActivationTile<T> tile{below.saved, below.saved_row, below.dz, below.dz_row, below.param};
  for (index_t j = 0; j < s.inputs; j += kNr<T>) {
    const index_t cols = s.inputs - j < kNr<T> ? s.inputs - j : kNr<T>;
    const index_t width = (cols + lanes - 1) / lanes * lanes;
    const T* panel = w + j * s.outputs;
    if (s.outputs > 1) {
      transpose_rows(panel, s.outputs, cols, width, scratch);
      panel = scratch;
    }
    const index_t most = rows_at_once<T>(rows, cols);
    for (index_t r = 0; r < rows; r += most) {
      const index_t count = rows - r < most ? rows - r : most;
      T* c = below.dz + r * below.dz_row + j;
      small_tiles<T, false>({s.outputs, s.dz + r * s.dz_row, s.dz_row, 1, panel, width, c,
                             below.dz_row, nullptr, true, 0},
                            count, cols, kMaxChunk);
      if (below.backward) below.backward(&tile, c, below.dz_row, r, count, j, cols);
    }
  }
}

template <class T>
static void small_backward(const SmallNetwork<T>& net, index_t rows, index_t chunk, T* gradient) {
  for (int i = net.count; i-- > 0;) {
    const SmallStage<T>& s = net.stage[i];
    small_gradient(s, rows, chunk, gradient + s.parameter_offset, net.scratch);
    if (i > 0) small_delta(s, net.stage[i - 1], net.w + s.parameter_offset, rows, net.scratch);
  }
}

// Rows of a shuffled batch lie anywhere: so many are on their way while one is copied.
static constexpr index_t kRowsAhead = 8;

// copy(from, to) for each row.
template <class T, class Copy>
FBP_FN static void for_each_gathered(const GatherArgs<T>& g, Copy copy) {
  T* to = g.to;
  index_t i = 0;
  if (!g.order) {
    for (; i < g.rows; ++i, to += g.to_row) copy(g.from + i * g.cols, to);
    return;
  }
  for (; i + kRowsAhead < g.rows; ++i, to += g.to_row) {
    __builtin_prefetch(g.from + g.order[i + kRowsAhead] * g.cols);
    copy(g.from + g.order[i] * g.cols, to);
  }
  for (; i < g.rows; ++i, to += g.to_row) copy(g.from + g.order[i] * g.cols, to);
}

template <class T, int Cols> static void gather_few(const GatherArgs<T>& g) {
  for_each_gathered(g, [](const T* x, T* to) {
    T row[Cols];
    for (int j = 0; j < Cols; ++j) row[j] = x[j];
    for (int j = 0; j < Cols; ++j) to[j] = row[j];
  });
}

// A row of less than a vector, and a few values, have loops of their own: they cost less than the
// questions which it is.
template <class T> static void gather_rows(const GatherArgs<T>& args) {
  using V = Vec<T>;
  const GatherArgs<T> g = args;
  const index_t whole = g.cols - g.cols % V::lanes;
  const int tail = int(g.cols - whole);
  static constexpr decltype(&gather_few<T, 1>) few[] = {gather_few<T, 1>, gather_few<T, 2>,
                                                        gather_few<T, 3>, gather_few<T, 4>};
  if (g.cols >= 1 && g.cols <= 4) return few[g.cols - 1](g);
  if (whole == 0)
    return for_each_gathered(g, [=](const T* x, T* to) { V::load_n(x, tail).store_n(to, tail); });
  for_each_gathered(g, [=](const T* x, T* to) {
    for (index_t j = 0; j < whole; j += V::lanes) V::load(x + j).store(to + j);
    if (tail) V::load_n(x + whole, tail).store_n(to + whole, tail);
  });
}
