// Layer and batch normalisation. Where gamma or beta is null it is 1 or 0.
//
// Sums along a row go by lanes and the tree; sums over rows in order, by chunks or blocks of rows
// that the shape alone decides.

template <class T> FBP_FN static Vec<T> load_or(const T* p, index_t j, int lanes, T otherwise) {
  return p ? load<Vec<T>>(p + j, lanes) : Vec<T>(otherwise);
}

// 1 / sqrt(variance + epsilon)
template <class V> FBP_FN static V inverse_deviation(V variance, typename V::scalar epsilon) {
  return V(1) / sqrt(variance + V(epsilon));
}

// y = (x - mean) factor by columns, where the mean may be null: 0. In place allowed.
template <class T> static void normalize(const NormArgs<T>& args) {
  using V = Vec<T>;
  for_each_vector<V>(args.rows, args.cols, [&](index_t i, index_t j, int lanes) {
    const V x = load<V>(args.x + i * args.x_row + j, lanes);
    store((x - load_or(args.mean, j, lanes, T(0))) * load<V>(args.factor + j, lanes),
          args.y + i * args.y_row + j, lanes);
  });
}

// y = (x - mean) / sqrt(variance + epsilon) gamma + beta by rows; mean and 1 / sqrt go to row_stats.
template <class T> static void layer_norm_forward(const NormArgs<T>& args) {
  using V = Vec<T>;
  for (index_t i = 0; i < args.rows; ++i) {
    const T* x = args.x + i * args.x_row;
    T* y = args.y + i * args.y_row;
    V sum(T(0)), squares(T(0));
    for_each_vector<V>(1, args.cols,
                       [&](index_t, index_t j, int lanes) { sum = sum + load<V>(x + j, lanes); });
    const V mean(reduce_add(sum) / T(args.cols));
    for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
      const V e = keep_lanes(load<V>(x + j, lanes) - mean, lanes, T(0));
      squares = fma(e, e, squares);
    });
    const V scale = inverse_deviation(V(reduce_add(squares) / T(args.cols)), args.epsilon);
    for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
      const V normal = (load<V>(x + j, lanes) - mean) * scale;
      store(fma(normal, load_or(args.gamma, j, lanes, T(1)), load_or(args.beta, j, lanes, T(0))),
            y + j, lanes);
    });
    mean.store_n(args.row_stats + 2 * i, 1);
    scale.store_n(args.row_stats + 2 * i + 1, 1);
  }
}

// With g = d gamma and n = (x - mean) scale:  y = scale (g - mean of g - n mean of g n).
template <class T> static void layer_norm_backward(const NormArgs<T>& args) {
  using V = Vec<T>;
  for (index_t i = 0; i < args.rows; ++i) {
    const T *x = args.x + i * args.x_row, *d = args.d + i * args.d_row;
    T* y = args.y + i * args.y_row;
    const V mean(args.row_stats[2 * i]), scale(args.row_stats[2 * i + 1]);
    V sum(T(0)), product(T(0));
    for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
      const V g = load<V>(d + j, lanes) * load_or(args.gamma, j, lanes, T(1));
      sum = sum + g;
      product = fma(g, (load<V>(x + j, lanes) - mean) * scale, product);
    });
    const V mean_g(reduce_add(sum) / T(args.cols)), mean_gn(reduce_add(product) / T(args.cols));
    for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
      const V g = load<V>(d + j, lanes) * load_or(args.gamma, j, lanes, T(1));
      const V normal = (load<V>(x + j, lanes) - mean) * scale;
      store(scale * fnma(normal, mean_gn, g - mean_g), y + j, lanes);
    });
  }
}

// dgamma = sum over rows of d n, dbeta = sum of d, summed as a GEMM sums over k.
template <class T>
static void layer_norm_gradient(const NormArgs<T>& args, Range columns, index_t chunk, T* dgamma,
                                T* dbeta) {
  using V = Vec<T>;
  for (index_t j = columns.begin; j < columns.end; j += V::lanes) {
    const int lanes = int(columns.end - j < V::lanes ? columns.end - j : V::lanes);
    V gamma(T(0)), beta(T(0));
    for (index_t begin = 0; begin < args.rows; begin += chunk) {
      const index_t end = args.rows - begin < chunk ? args.rows : begin + chunk;
      V sum(T(0)), product(T(0));
      for (index_t i = begin; i < end; ++i) {
        const V d = load<V>(args.d + i * args.d_row + j, lanes);
        const V mean(args.row_stats[2 * i]), scale(args.row_stats[2 * i + 1]);
        sum = sum + d;
        product = fma(d, (load<V>(args.x + i * args.x_row + j, lanes) - mean) * scale, product);
      }
      gamma = begin == 0 ? product : gamma + product;
      beta = begin == 0 ? sum : beta + sum;
    }
    if (dgamma) store(gamma, dgamma + j, lanes);
    if (dbeta) store(beta, dbeta + j, lanes);
  }
}

// Of one block of rows: mean (cols), then the sum of squares about it (cols).
template <class T> static void batch_norm_block(const NormArgs<T>& args, T* block) {
  using V = Vec<T>;
  for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
    V sum(T(0)), squares(T(0));
    for (index_t i = 0; i < args.rows; ++i) sum = sum + load<V>(args.x + i * args.x_row + j, lanes);
    const V mean = sum / V(T(args.rows));
    for (index_t i = 0; i < args.rows; ++i) {
      const V e = load<V>(args.x + i * args.x_row + j, lanes) - mean;
      squares = fma(e, e, squares);
    }
    store(mean, block + j, lanes);
    store(squares, block + args.cols + j, lanes);
  });
}

// Mean and variance (divided by rows) of the batch from its blocks of block_rows, added in order:
// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979.
template <class T>
static void batch_norm_combine(const T* blocks, index_t cols, index_t rows, index_t block_rows,
                               T* mean, T* variance) {
  using V = Vec<T>;
  for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
    V m = load<V>(blocks + j, lanes), squares = load<V>(blocks + cols + j, lanes);
    const T* block = blocks;
    for (index_t n = block_rows; n < rows; n += block_rows) {
      block += 2 * cols;
      const index_t more = rows - n < block_rows ? rows - n : block_rows;
      const T share = T(double(more) / double(n + more));
      const V e = load<V>(block + j, lanes) - m;
      m = fma(e, V(share), m);
      squares = fma(e * e, V(T(n) * share), squares + load<V>(block + cols + j, lanes));
    }
    store(m, mean + j, lanes);
    store(squares / V(T(rows)), variance + j, lanes);
  });
}

// y = (x - mean) / sqrt(variance + epsilon) gamma + beta by columns.
template <class T> static void batch_norm_forward(const NormArgs<T>& args) {
  using V = Vec<T>;
  for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
    const V mean = load<V>(args.mean + j, lanes), beta = load_or(args.beta, j, lanes, T(0));
    const V scale = load_or(args.gamma, j, lanes, T(1)) *
                    inverse_deviation(load<V>(args.variance + j, lanes), args.epsilon);
    for (index_t i = 0; i < args.rows; ++i)
      store(fma(load<V>(args.x + i * args.x_row + j, lanes) - mean, scale, beta),
            args.y + i * args.y_row + j, lanes);
  });
}

// Of one block of rows: the sum of d (cols), then that of d (x - mean) (cols).
template <class T> static void batch_norm_sums(const NormArgs<T>& args, T* block) {
  using V = Vec<T>;
  for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
    const V mean = load<V>(args.mean + j, lanes);
    V sum(T(0)), product(T(0));
    for (index_t i = 0; i < args.rows; ++i) {
      const V d = load<V>(args.d + i * args.d_row + j, lanes);
      sum = sum + d;
      product = fma(d, load<V>(args.x + i * args.x_row + j, lanes) - mean, product);
    }
    store(sum, block + j, lanes);
    store(product, block + args.cols + j, lanes);
  });
}

// y = gamma r (d - sums[0] / n - (x - mean) r^2 sums[1] / n) with r = 1 / sqrt(variance + epsilon),
// n the batch's rows and sums its (2, cols); null: 0, for statistics that are constants.
template <class T> static void batch_norm_backward(const NormArgs<T>& args) {
  using V = Vec<T>;
  const V part(T(1) / T(args.batch_rows));
  for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
    const V mean = load<V>(args.mean + j, lanes);
    const V r = inverse_deviation(load<V>(args.variance + j, lanes), args.epsilon);
    const V scale = r * load_or(args.gamma, j, lanes, T(1));
    V shift(T(0)), slope(T(0));
    if (args.sums) {
      shift = load<V>(args.sums + j, lanes) * part;
      slope = load<V>(args.sums + args.cols + j, lanes) * part * (r * r);
    }
    for (index_t i = 0; i < args.rows; ++i) {
      const V d = load<V>(args.d + i * args.d_row + j, lanes) - shift;
      const V e = load<V>(args.x + i * args.x_row + j, lanes) - mean;
      store(scale * fnma(e, slope, d), args.y + i * args.y_row + j, lanes);
    }
  });
}

// dgamma = sums[1] / sqrt(variance + epsilon) and dbeta = sums[0] of some columns.
template <class T>
static void batch_norm_gradient(const NormArgs<T>& args, Range columns, T* dgamma, T* dbeta) {
  using V = Vec<T>;
  for (index_t j = columns.begin; j < columns.end; j += V::lanes) {
    const int lanes = int(columns.end - j < V::lanes ? columns.end - j : V::lanes);
    const V r = inverse_deviation(load<V>(args.variance + j, lanes), args.epsilon);
    if (dgamma) store(load<V>(args.sums + args.cols + j, lanes) * r, dgamma + j, lanes);
    if (dbeta) store(load<V>(args.sums + j, lanes), dbeta + j, lanes);
  }
}

// moving = moving + momentum (seen - moving); the variance is first divided by n - 1 instead of n.
template <class T>
static void batch_norm_moving(const NormArgs<T>& args, T momentum, T* mean, T* variance) {
  using V = Vec<T>;
  const T rows = T(args.batch_rows);
  const V rate(momentum), unbiased(args.batch_rows > 1 ? rows / (rows - T(1)) : T(1));
  for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
    const V m = load<V>(mean + j, lanes), v = load<V>(variance + j, lanes);
    store(fma(rate, load<V>(args.mean + j, lanes) - m, m), mean + j, lanes);
    store(fma(rate, load<V>(args.variance + j, lanes) * unbiased - v, v), variance + j, lanes);
  });
}
