// Losses over a batch: sums by blocks of kLossBlockRows rows, so that no sum depends on
// the split among threads.

// Calls body(block index, first row, rows) for the blocks of this share.
template <class Body> FBP_FN static void for_each_block(index_t rows, Share share, Body body) {
  const Range part = split(rows, kLossBlockRows, share);
  for (index_t i = part.begin; i < part.end; i += kLossBlockRows)
    body(i / kLossBlockRows, i, part.end - i < kLossBlockRows ? part.end - i : kLossBlockRows);
}

// A block's elements are one flat run: lane l sums elements l, l + lanes, ...; then the fixed tree.
template <class T, class Loss, bool weighted>
FBP_FN static void elementwise_sums(const LossArgs<T>& args, Share share) {
  using V = Item<T>;
  const V param(args.param), scale(args.dy_scale);
  for_each_block(args.rows, share, [&](index_t block, index_t i, index_t rows) {
    const index_t n = rows * args.cols, at = i * args.cols;
    Vec<T> sum(T(0));
    for_each_vector<V>(1, n, [&](index_t, index_t j, int lanes) {
      const V y = load<V>(args.y + at + j, lanes), t = load<V>(args.target + at + j, lanes);
      V value = Loss::value(y, t, param), dy = Loss::gradient(y, t, param) * scale;
      if constexpr (weighted) {
        const V w = load<V>(args.weight + at + j, lanes);
        value = value * w;
        dy = dy * w;
      }
      // The loss of the zeros beyond the tail need not be zero.
      add_item<T>(sum, j, value, lanes);
      store(dy, args.dy + at + j, lanes);
    });
    args.block_loss[block] = double(reduce_add(sum));
  });
}

template <class T, class Loss> static void elementwise_loss(const LossArgs<T>& args, Share share) {
  if (args.weight)
    elementwise_sums<T, Loss, true>(args, share);
  else
    elementwise_sums<T, Loss, false>(args, share);
}

// Largest element of a row.
template <class T> FBP_FN static T row_max(const T* x, index_t cols) {
  using V = Vec<T>;
  const T lowest = -T(__builtin_inf());
  V largest(lowest);
  for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
    largest = max(keep_lanes(load<V>(x + j, lanes), lanes, lowest), largest);
  });
  return reduce_max(largest);
}

// y = exp(x - shift) along a row; returns the sum of y. In place allowed.
template <class T> FBP_FN static T exp_shifted(const T* x, T* y, index_t cols, T shift) {
  using V = Item<T>;
  Vec<T> sum(T(0));
  for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
    const V e = exp(load<V>(x + j, lanes) - V(shift));
    store(e, y + j, lanes);
    add_item<T>(sum, j, e, lanes);
  });
  return reduce_add(sum);
}

// The largest logit, kept finite: of a row of -inf (or of NaN) exp(x - shift) must not become
// exp(-inf + inf).
template <class T> FBP_FN static T softmax_shift(const T* x, index_t cols) {
  const T largest = row_max(x, cols);
  return largest > -T(__builtin_inf()) ? largest : T(0);
}

template <class T> FBP_FN static void softmax_row(const T* x, T* y, index_t cols) {
  using V = Vec<T>;
  const T sum = exp_shifted(x, y, cols, softmax_shift(x, cols));
  for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
    store(load<V>(y + j, lanes) / V(sum), y + j, lanes);
  });
}

template <class T> static void softmax(const T* x, T* y, index_t rows, index_t cols, Share share) {
  const Range part = split(rows, 1, share);
  for (index_t i = part.begin; i < part.end; ++i) softmax_row(x + i * cols, y + i * cols, cols);
}

// A layer's y = softmax(x) by rows.
template <class T> static void softmax_forward(const NormArgs<T>& args) {
  for (index_t i = 0; i < args.rows; ++i)
    softmax_row(args.x + i * args.x_row, args.y + i * args.y_row, args.cols);
}

// y = s (d - sum of s d), s = softmax(x), which is made anew.
template <class T> static void softmax_backward(const NormArgs<T>& args) {
  using V = Vec<T>;
  for (index_t i = 0; i < args.rows; ++i) {
    const T *x = args.x + i * args.x_row, *d = args.d + i * args.d_row;
    T* y = args.y + i * args.y_row;
    const V shift(softmax_shift(x, args.cols));
    V total(T(0)), product(T(0));
    for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
      const V e = keep_lanes(exp(load<V>(x + j, lanes) - shift), lanes, T(0));
      total = total + e;
      product = fma(e, load<V>(d + j, lanes), product);
    });
    const V sum(reduce_add(total)), mean = V(reduce_add(product)) / sum;
    for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
      const V share = exp(load<V>(x + j, lanes) - shift) / sum;
      store(share * (load<V>(d + j, lanes) - mean), y + j, lanes);
    });
  }
}

// One row of softmax cross-entropy with weights t (T* target) or a class number. e holds exp(z -
// shift) and becomes dz.
template <class T>
FBP_FN static T softmax_row_loss(const T* z, const T* target, std::int64_t label, index_t cols,
                                 T* e, T dy_scale, T smoothing) {
  using V = Vec<T>;
  const T shift = softmax_shift(z, cols);
  const T at_label = target ? T(0) : z[label];  // read before e, which may be z's memory
  T weight = 1, weighted = at_label - shift;
  if (target) {
    V sum_t(T(0)), sum_tz(T(0));
    for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
      const V t = load<V>(target + j, lanes);
      sum_t = sum_t + t;
      // 0 * -inf: a class of no weight adds nothing.
      sum_tz = sum_tz + select(t == V(T(0)), V(T(0)), t * (load<V>(z + j, lanes) - V(shift)));
    });
    weight = reduce_add(sum_t);
    weighted = reduce_add(sum_tz);
  }
  const T share = smoothing / T(cols), kept = T(1) - smoothing;  // of each class; of the target
  if (smoothing != 0) {
    V sum_z(T(0));
    for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
      sum_z = sum_z + keep_lanes(load<V>(z + j, lanes) - V(shift), lanes, T(0));
    });
    weight = kept * weight + smoothing;
    weighted = kept * weighted + share * reduce_add(sum_z);
  }
  const T sum = exp_shifted(z, e, cols, shift);
  T log_sum[Item<T>::lanes];
  log(Item<T>(sum)).store(log_sum);
  const V factor(dy_scale * weight / sum), of_target(dy_scale * kept), of_all(dy_scale * share);
  for_each_vector<V>(1, cols, [&](index_t, index_t j, int lanes) {
    V dz = load<V>(e + j, lanes) * factor;
    if (smoothing != 0) dz = dz - of_all;
    if (target) dz = fnma(load<V>(target + j, lanes), of_target, dz);
    store(dz, e + j, lanes);
  });
  if (!target) e[label] -= dy_scale * kept;
  return log_sum[0] * weight - weighted;
}

// column[c * lanes + r] = x[r * cols + c] of up to `lanes` rows and columns; zero beyond the rows.
template <class T>
FBP_FN static void to_columns(const T* x, index_t rows, index_t cols, T* column) {
  constexpr int lanes = Vec<T>::lanes;
  Vec<T> v[lanes];
  load_columns(x, cols, cols, rows, v);
#pragma GCC unroll kBlockUnroll
  for (int c = 0; c < lanes; ++c)
    if (c < cols) v[c].store(column + c * lanes);
}

// Position of the largest, the first of equals, of each of up to `lanes` rows of at most `lanes` columns
// (to_columns); 0 where the first is NaN.
template <class T> FBP_FN static Vec<T> argmax_of_columns(const T* column, index_t cols) {
  using V = Vec<T>;
  V best = V::load(column), at(T(0));
  for (index_t c = 1; c < cols; ++c) {
    const V v = V::load(column + c * V::lanes);
    const auto larger = v > best;
    best = select(larger, v, best);
    at = select(larger, V(T(c)), at);
  }
  return at;
}

// dz[r * cols + c] = column[c * lanes + r], less of_target(r) in the column of the row's label, if there
// are labels.
template <class T, class Amount>
FBP_FN static void from_columns(const T* column, index_t rows, index_t cols,
                                const std::int64_t* labels, Amount of_target, T* dz) {
  using V = Vec<T>;
  constexpr int lanes = V::lanes;
  if (cols <= kMostInterleaved) {
    interleave_few(column, lanes, cols, rows, dz);
    if (labels)
      for (index_t r = 0; r < rows; ++r) dz[r * cols + labels[r]] -= of_target(r);
    return;
  }
  alignas(64) T number[lanes];
  for (int c = 0; c < lanes; ++c) number[c] = T(c);
  const V numbers = V::load(number);
  V v[lanes];
  load_columns(column, lanes, rows, cols, v);
#pragma GCC unroll kBlockUnroll
  for (int r = 0; r < lanes; ++r) {
    if (r >= rows) break;
    if (labels) v[r] = v[r] - select(numbers == V(T(labels[r])), V(of_target(r)), V(T(0)));
    v[r].store_n(dz + r * cols, int(cols));
  }
}

// Of the first `rows` lanes, the rows whose class `taken` is their own. With `counts`, what
// MetricArgs::counts has of them.
template <class T>
static int count_classes(Vec<T> taken, Vec<T> own, int rows, index_t cols, std::int64_t* counts) {
  using V = Vec<T>;
  const index_t classes = cols == 1 ? 2 : cols;
  const auto real = lane_index(T()) < V(T(rows));
  const auto right = (taken == own) & real;
  for (index_t c = 0; counts && c < classes; ++c) {
    const V number = V(T(c));
    const auto of_class = (own == number) & real;
    counts[c] += count(of_class & right);
    counts[classes + c] += count((taken == number) & real);
    counts[2 * classes + c] += count(of_class);
  }
  return count(right);
}

// Of the first `rows` lanes, a row in each (to_columns), those whose own class has fewer than k scores
// before it: larger ones, and of equal ones those behind it.
template <class T>
static int count_in_top(const T* column, index_t cols, Vec<T> own, int rows, index_t k) {
  using V = Vec<T>;
  V score(T(0)), before(T(0));
  for (index_t c = 0; c < cols; ++c)
    score = select(own == V(T(c)), V::load(column + c * V::lanes), score);
  for (index_t c = 0; c < cols; ++c) {
    const V v = V::load(column + c * V::lanes);
    before = before + select((v > score) | ((v == score) & (V(T(c)) > own)), V(T(1)), V(T(0)));
  }
  return count((before < V(T(k))) & (lane_index(T()) < V(T(rows))));
}

// Rows of a block that metrics count on the loss's way.
struct CountedRows { int right = 0, in_top = 0; };

// The same for up to `lanes` rows of at most `lanes` classes, one row in each lane; sums run over
// the classes in order. Returns the sum of the rows' losses, in order, and adds to *counted what metrics
// want.
template <class T, bool has_weights>
static double softmax_narrow_loss(const LossArgs<T>& args, index_t begin, int rows,
                                  CountedRows* counted) {
  using V = Vec<T>;
  constexpr int lanes = V::lanes;
  const index_t cols = args.cols;
  const T* z = args.y + begin * cols;
  const T* target = args.target ? args.target + begin * cols : nullptr;
  const std::int64_t* labels = args.labels ? args.labels + begin : nullptr;
  T* dz = args.dy + begin * cols;
  alignas(64) T column[lanes * lanes];  // class c of row r at c * lanes + r
  alignas(64) T at_label[lanes] = {}, label[lanes] = {};
  alignas(64) T t_column[lanes * lanes];
  to_columns(z, rows, cols, column);
  const T lowest = -T(__builtin_inf());
  V shift(lowest);
  for (index_t c = 0; c < cols; ++c) shift = max(V::load(column + c * lanes), shift);
  shift = select(shift > V(lowest), shift, V(T(0)));
  V weight(T(1)), weighted;
  if (labels) {
    for (int r = 0; r < rows; ++r) {
      at_label[r] = z[r * cols + labels[r]];
      label[r] = T(labels[r]);
    }
    weighted = V::load(at_label) - shift;
  } else {
    weight = weighted = V(T(0));
    to_columns(target, rows, cols, t_column);
    for (index_t c = 0; c < cols; ++c) {
      const V t = V::load(t_column + c * lanes);
      weight = weight + t;
      weighted =
          weighted + select(t == V(T(0)), V(T(0)), t * (V::load(column + c * lanes) - shift));
    }
  }
  if (args.block_right || args.counts || args.block_top) {
    const V own = labels ? V::load(label) : argmax_of_columns(t_column, cols);
    if (args.block_right || args.counts)
      counted->right +=
          count_classes(argmax_of_columns(column, cols), own, rows, cols, args.counts);
    if (args.block_top) counted->in_top += count_in_top(column, cols, own, rows, args.k);
  }
  const T smoothing = args.param, share = smoothing / T(cols), kept = T(1) - smoothing;
  if (smoothing != 0) {
    V sum_z(T(0));
    for (index_t c = 0; c < cols; ++c) sum_z = sum_z + (V::load(column + c * lanes) - shift);
    weight = V(kept) * weight + V(smoothing);
    weighted = V(kept) * weighted + V(share) * sum_z;
  }
  V sum(T(0));
  for (index_t c = 0; c < cols; ++c) {
    const V e = by_items<T>(V::load(column + c * lanes) - shift, [](auto x) { return exp(x); });
    e.store(column + c * lanes);
    sum = sum + e;
  }
  V scale(args.dy_scale), row_weight;
  if constexpr (has_weights) {
    row_weight = V::load_n(args.weight + begin, rows);
    scale = scale * row_weight;
  }
  const V of_target = scale * V(kept);
  alignas(64) T of_row[lanes];
  if constexpr (has_weights) of_target.store(of_row);
  const T of_any = args.dy_scale * kept;
  const V factor = scale * weight / sum, of_all = scale * V(share);
  for (index_t c = 0; c < cols; ++c) {
    V p = V::load(column + c * lanes) * factor;
    if (smoothing != 0) p = p - of_all;
    if (target) p = p - V::load(t_column + c * lanes) * of_target;
    p.store(column + c * lanes);
  }
  from_columns(
      column, rows, cols, labels, [&](index_t r) { return has_weights ? of_row[r] : of_any; }, dz);
  alignas(64) T row_loss[lanes];
  V losses = by_items<T>(sum, [](auto x) { return log(x); }) * weight - weighted;
  if constexpr (has_weights) losses = losses * row_weight;
  losses.store(row_loss);
  double total = 0;
  for (int r = 0; r < rows; ++r) total += double(row_loss[r]);
  return total;
}

// dy is needed as working memory also where no gradient is wanted.
template <class T> static void softmax_cross_entropy(const LossArgs<T>& args, Share share) {
  constexpr index_t lanes = Vec<T>::lanes;
  for_each_block(args.rows, share, [&](index_t block, index_t begin, index_t rows) {
    double sum = 0;
    CountedRows counted;
    for (index_t i = begin; i < begin + rows;) {
      if (args.cols <= lanes) {
        const index_t here = begin + rows - i < lanes ? begin + rows - i : lanes;
        sum += args.weight ? softmax_narrow_loss<T, true>(args, i, int(here), &counted)
                           : softmax_narrow_loss<T, false>(args, i, int(here), &counted);
        i += here;
      } else {
        const index_t at = i * args.cols;
        const T weight = args.weight ? args.weight[i] : T(1);
        sum += double(weight *
                      softmax_row_loss<T>(args.y + at, args.target ? args.target + at : nullptr,
                                          args.labels ? args.labels[i] : 0, args.cols, args.dy + at,
                                          args.dy_scale * weight, args.param));
        ++i;
      }
    }
    args.block_loss[block] = sum;
    if (args.block_right) args.block_right[block] = double(counted.right);
    if (args.block_top) args.block_top[block] = double(counted.in_top);
  });
}
