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

// Of up to kLossBlockRows rows, those whose true class has fewer than k scores before it: larger ones,
// and of equal ones those behind it.
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
  alignas(64) T column[lanes * lanes], of_row[lanes] = {}, place_of_row[lanes] = {};
  for (index_t i = 0; i < rows; i += lanes) {
    const index_t here = rows - i < lanes ? rows - i : lanes;
    to_columns(y + i * args.cols, here, args.cols, column);
    for (index_t r = 0; r < here; ++r) {
      of_row[r] = y[(i + r) * args.cols + wanted[i + r]];
      place_of_row[r] = T(wanted[i + r]);
    }
    const V own = V::load(of_row), place = V::load(place_of_row);
    V before(T(0));
    for (index_t c = 0; c < args.cols; ++c) {
      const V v = V::load(column + c * lanes);
      const auto first = (v > own) | ((v == own) & (V(T(c)) > place));
      before = before + select(first, V(T(1)), V(T(0)));
    }
    alignas(64) T counted[lanes];
    before.store(counted);
    for (index_t r = 0; r < here; ++r) hits += index_t(counted[r]) < args.k;
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
    V right(zero), taken(zero), wanted(zero);
    for_each_vector<V>(1, rows, [&](index_t, index_t i, int lanes) {
      const V q = select(load<V>(y + i, lanes) > cut, one, zero);
      const V t = select(load<V>(target + i, lanes) > half, one, zero);
      right = right + keep_lanes(q * t, lanes, T(0));
      taken = taken + keep_lanes(q, lanes, T(0));
      wanted = wanted + keep_lanes(t, lanes, T(0));
    });
    const auto r = std::int64_t(reduce_add(right)), q = std::int64_t(reduce_add(taken)),
               t = std::int64_t(reduce_add(wanted));
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
  const V zero(T(0)), one(T(1)), cut(args.threshold), half(T(0.5));
  V wrong(zero);
  for_each_vector<V>(1, rows, [&](index_t, index_t i, int lanes) {
    const V q = select(load<V>(args.y + begin + i, lanes) > cut, one, zero);
    const V t = select(load<V>(args.target + begin + i, lanes) > half, one, zero);
    wrong = wrong + keep_lanes(select(q == t, zero, one), lanes, T(0));
  });
  return double(rows) - double(reduce_add(wrong));
}

// The sum over up to kLossBlockRows rows, from `begin` on, of the means of value(y, target) over their
// columns; errors, where given, count as outputs whose target is 0. Columns and rows are added in order.
template <class T, class Value>
static double row_means(const MetricArgs<T>& args, index_t begin, index_t rows, Value value) {
  constexpr int lanes = Vec<T>::lanes;
  const index_t cols = args.cols, at = begin * cols;
  const T* y = (args.error ? args.error : args.y) + at;
  const T* target = args.error ? nullptr : args.target + at;
  const double scale = args.error ? double(args.error_scale) : 1;
  double total = 0;
  if (cols > lanes) {
    for (index_t i = 0; i < rows; ++i, y += cols) {
      double sum = 0;
      for (index_t j = 0; j < cols; ++j)
        sum += value(double(y[j]) * scale, target ? double(target[i * cols + j]) : 0);
      total += sum / double(cols);
    }
    return total;
  }
  // A row in each lane.
  alignas(64) T y_column[lanes * lanes], t_column[lanes * lanes] = {};
  for (index_t i = 0; i < rows; i += lanes) {
    const index_t here = rows - i < lanes ? rows - i : lanes;
    to_columns(y + i * cols, here, cols, y_column);
    if (target) to_columns(target + i * cols, here, cols, t_column);
    alignas(64) double sum[lanes] = {};
    for (index_t c = 0; c < cols * lanes; c += lanes)
      for (int r = 0; r < lanes; ++r)
        sum[r] += value(double(y_column[c + r]) * scale, double(t_column[c + r]));
    for (int r = 0; r < lanes; ++r) sum[r] /= double(cols);
    for (index_t r = 0; r < here; ++r) total += sum[r];
  }
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
