// Metrics over a batch: sums by blocks as those of losses (loss.inl), and counts of rows, which are
// integers and have no order.

// Positions up to here are exact in every T.
static constexpr index_t kExactPositions = index_t(1) << 24;

// Position of the largest element, the first of equals; 0 where the first is NaN.
template <class T> static index_t argmax(const T* x, index_t n) {
  using V = Vec<T>;
  if (n > kExactPositions) {
    index_t best = 0;
    for (index_t j = 1; j < n; ++j)
      if (x[j] > x[best]) best = j;
    return best;
  }
  if (x[0] != x[0]) return 0;
  const T lowest = -T(__builtin_inf());
  const V lane = lane_index(T());
  V best(lowest), at(T(0));
  for_each_vector<V>(1, n, [&](index_t, index_t j, int lanes) {
    const V v = keep_lanes(load<V>(x + j, lanes), lanes, lowest);
    const auto larger = v > best;
    best = select(larger, v, best);
    at = select(larger, V(T(j)) + lane, at);
  });
  const V largest(reduce_max(best));
  const T first = -reduce_max(select(best == largest, -at, V(-T(kExactPositions))));
  // Where no lane found any, all are -inf or NaN.
  return first < T(n) ? index_t(first) : 0;
}

// The same of rows of so few columns that turning them costs more than the comparisons.
template <class T, int Cols>
static void argmax_of_few(const T* x, index_t rows, index_t* position) {
  for (index_t i = 0; i < rows; ++i, x += Cols) {
    T best = x[0];
    index_t at = 0;
#pragma GCC unroll 8
    for (int c = 1; c < Cols; ++c) {
      const bool larger = x[c] > best;
      best = larger ? x[c] : best;
      at = larger ? c : at;
    }
    position[i] = at;
  }
}

// The position of the largest of each of up to kLossBlockRows rows of a contiguous matrix.
template <class T>
static void argmax_of_rows(const T* x, index_t rows, index_t cols, index_t* position) {
  constexpr index_t lanes = Vec<T>::lanes;
  if (cols == 2) return argmax_of_few<T, 2>(x, rows, position);
  if (cols == 3) return argmax_of_few<T, 3>(x, rows, position);
  if (cols == 4) return argmax_of_few<T, 4>(x, rows, position);
  if (cols > lanes) {
    for (index_t i = 0; i < rows; ++i) position[i] = argmax(x + i * cols, cols);
    return;
  }
  alignas(64) T column[lanes * lanes], at[lanes];
  for (index_t i = 0; i < rows; i += lanes) {
    const index_t here = rows - i < lanes ? rows - i : lanes;
    to_columns(x + i * cols, here, cols, column);
    argmax_of_columns(column, cols).store(at);
    for (index_t r = 0; r < here; ++r) position[i + r] = index_t(at[r]);
  }
}

// The true class of each of up to kLossBlockRows rows from `begin` on.
template <class T>
static void true_classes(const MetricArgs<T>& args, index_t begin, index_t rows, index_t* wanted) {
  if (args.labels)
    for (index_t i = 0; i < rows; ++i) wanted[i] = index_t(args.labels[begin + i]);
  else
    argmax_of_rows(args.target + begin * args.cols, rows, args.cols, wanted);
}

// Of up to kLossBlockRows rows, those whose true class has fewer than k scores before it, as
// count_in_top says.
template <class T>
static index_t rows_in_top(const MetricArgs<T>& args, index_t begin, index_t rows) {
  using V = Vec<T>;
  constexpr index_t lanes = V::lanes;
  index_t wanted[kLossBlockRows];
  true_classes(args, begin, rows, wanted);
  const T* y = args.y + begin * args.cols;
  index_t hits = 0;
  if (args.cols > lanes) {
    for (index_t i = 0; i < rows; ++i) {
      const T* row = y + i * args.cols;
      const V own(row[wanted[i]]);
      const auto place = V(T(wanted[i]));
      V before(T(0));
      for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int count) {
        const V v = load<V>(row + j, count);
        const auto later = V(T(j)) + lane_index(T()) > place;
        const V one = select((v > own) | ((v == own) & later), V(T(1)), V(T(0)));
        before = before + keep_lanes(one, count, T(0));
      });
      hits += index_t(reduce_add(before)) < args.k;
    }
    return hits;
  }
  alignas(64) T column[lanes * lanes], place[lanes] = {};
  for (index_t i = 0; i < rows; i += lanes) {
    const index_t here = rows - i < lanes ? rows - i : lanes;
    to_columns(y + i * args.cols, here, args.cols, column);
    for (index_t r = 0; r < here; ++r) place[r] = T(wanted[i + r]);
    hits += count_in_top(column, args.cols, V::load(place), int(here), args.k);
  }
  return hits;
}

// Of up to kLossBlockRows rows, how many have the largest output at their class. With `counts`, for
// each class the rows that are right, taken for it, and its own; one output has room for two classes,
// of which all rows are the first.
template <class T>
static index_t right_rows(const MetricArgs<T>& args, index_t begin, index_t rows,
                          std::int64_t* counts) {
  index_t wanted[kLossBlockRows], taken[kLossBlockRows];
  true_classes(args, begin, rows, wanted);
  argmax_of_rows(args.y + begin * args.cols, rows, args.cols, taken);
  index_t right = 0;
  if (!counts) {
    for (index_t i = 0; i < rows; ++i) right += taken[i] == wanted[i];
    return right;
  }
  const index_t classes = args.cols == 1 ? 2 : args.cols;
  for (index_t i = 0; i < rows; ++i) {
    const index_t t = wanted[i], q = taken[i];
    counts[q] += q == t;
    ++counts[classes + q];
    ++counts[2 * classes + t];
  }
  return right;
}

// The same of outputs that are each yes or no. One output is about two classes, each of several
// about one.
template <class T>
static void count_labels(const MetricArgs<T>& args, index_t begin, index_t rows,
                         std::int64_t* counts) {
  using V = Vec<T>;
  const V zero(T(0)), one(T(1)), cut(args.threshold), half(T(0.5));
  const T *y = args.y + begin * args.cols, *target = args.target + begin * args.cols;
  if (args.cols == 1) {
    int r = 0, q = 0, t = 0;
    for_each_vector<V>(1, rows, [&](index_t, index_t i, int lanes) {
      const auto real = lane_index(T()) < V(T(lanes));
      const auto taken = (load<V>(y + i, lanes) > cut) & real;
      const auto wanted = (load<V>(target + i, lanes) > half) & real;
      r += count(taken & wanted), q += count(taken), t += count(wanted);
    });
    counts[0] += rows - q - t + r, counts[1] += r;
    counts[2] += rows - q, counts[3] += q;
    counts[4] += rows - t, counts[5] += t;
    return;
  }
  for_each_vector<V>(1, args.cols, [&](index_t, index_t j, int lanes) {
    V right(zero), taken(zero), wanted(zero);
    for (index_t i = 0; i < rows; ++i) {
      const V q = select(load<V>(y + i * args.cols + j, lanes) > cut, one, zero);
      const V t = select(load<V>(target + i * args.cols + j, lanes) > half, one, zero);
      right = right + q * t, taken = taken + q, wanted = wanted + t;
    }
    alignas(64) T sums[3][V::lanes];
    right.store(sums[0]), taken.store(sums[1]), wanted.store(sums[2]);
    for (int kind = 0; kind < 3; ++kind)
      for (int l = 0; l < lanes; ++l)
        counts[kind * args.cols + j + l] += std::int64_t(sums[kind][l]);
  });
}

// Of up to kLossBlockRows rows of one output, those on the right side of the cut.
template <class T>
static double right_cuts(const MetricArgs<T>& args, index_t begin, index_t rows) {
  using V = Vec<T>;
  const V cut(args.threshold), half(T(0.5));
  int wrong = 0;
  for_each_vector<V>(1, rows, [&](index_t, index_t i, int lanes) {
    const auto real = lane_index(T()) < V(T(lanes));
    const auto q = (load<V>(args.y + begin + i, lanes) > cut) & real;
    const auto t = (load<V>(args.target + begin + i, lanes) > half) & real;
    wrong += count(q) + count(t) - 2 * count(q & t);
  });
  return double(rows - wrong);
}

// Columns of up to kLossBlockRows rows whose values row_means keeps at once: 2 KiB of them.
static constexpr index_t kMeanColumns = 16;

// The sum over up to kLossBlockRows rows, from `begin` on, of the means of value(y, target) over their
// columns; errors, where given, count as outputs whose target is 0. Columns and rows are added in order:
// all rows side by side, as the additions of one wait for each other.
template <class T, class Value>
static double row_means(const MetricArgs<T>& args, index_t begin, index_t rows, Value value) {
  const index_t cols = args.cols, at = begin * cols;
  const T* y = (args.error ? args.error : args.y) + at;
  const T* target = args.error ? nullptr : args.target + at;
  const double scale = args.error ? double(args.error_scale) : 1;
  double values[kLossBlockRows * kMeanColumns], sum[kLossBlockRows] = {};
  const auto evaluate = [&](index_t from, index_t n, double* to) {
    if (target)
      for (index_t i = 0; i < n; ++i)
        to[i] = value(double(y[from + i]) * scale, double(target[from + i]));
    else
      for (index_t i = 0; i < n; ++i) to[i] = value(double(y[from + i]) * scale, 0);
  };
  double total = 0;
  if (cols == 1) {
    evaluate(0, rows, values);
    for (index_t i = 0; i < rows; ++i) total += values[i];
    return total;
  }
  for (index_t first = 0; first < cols; first += kMeanColumns) {
    const index_t here = cols - first < kMeanColumns ? cols - first : kMeanColumns;
    if (here == cols)
      evaluate(0, rows * cols, values);
    else
      for (index_t i = 0; i < rows; ++i) evaluate(i * cols + first, here, values + i * here);
    for (index_t j = 0; j < here; ++j)
      for (index_t i = 0; i < rows; ++i) sum[i] += values[i * here + j];
  }
  for (double& row : sum) row /= double(cols);
  for (index_t i = 0; i < rows; ++i) total += sum[i];
  return total;
}

// A block's sum; 0 for what is counted instead.
template <class T>
static double metric_block(const MetricArgs<T>& args, index_t begin, index_t rows) {
  switch (args.kind) {
  case MetricKind::accuracy_argmax:
    return double(right_rows<T>(args, begin, rows, nullptr));
  case MetricKind::top_k:
    return double(rows_in_top(args, begin, rows));
  case MetricKind::counts_argmax:
    right_rows(args, begin, rows, args.counts);
    return 0;
  case MetricKind::counts_threshold:
    count_labels(args, begin, rows, args.counts);
    return 0;
  case MetricKind::accuracy_threshold:
    if (args.cols == 1) return right_cuts(args, begin, rows);
    return row_means(args, begin, rows, [cut = double(args.threshold)](double y, double t) {
      return double((y > cut) == (t > 0.5));
    });
  case MetricKind::mse:
    return row_means(args, begin, rows, [](double y, double t) { return (y - t) * (y - t); });
  default:
    return row_means(args, begin, rows, [](double y, double t) { return y < t ? t - y : y - t; });
  }
}

template <class T> static void metric(const MetricArgs<T>& args, Share share) {
  for_each_block(args.rows, share, [&](index_t block, index_t begin, index_t rows) {
    args.block_sum[block] = metric_block(args, begin, rows);
  });
}
