// Rows of integers gathered as floating-point numbers (integer_rows.h). Plain loops: compilers turn them
// into conversions of whole vectors, which round as those of one number do.

template <class T, class I> static void gather_integers_of(const IntegerGatherArgs<T>& g) {
  const auto from = [&](index_t i) {
    return static_cast<const I*>(g.from) + (g.order ? index_t(g.order[i]) : i) * g.from_row;
  };
  for (index_t i = 0; i < g.rows; ++i) {
    if (i + kRowsAhead < g.rows) __builtin_prefetch(from(i + kRowsAhead));
    const I* __restrict x = from(i);
    T* __restrict to = g.to + i * g.to_row;
    if (g.factor)
      for (index_t j = 0; j < g.cols; ++j) to[j] = (T(x[j]) - g.center[j]) * g.factor[j];
    else
      for (index_t j = 0; j < g.cols; ++j) to[j] = T(x[j]);
  }
}

template <class T> static void gather_integers(const IntegerGatherArgs<T>& args) {
  switch (args.type) {
  case IntegerType::u8:
    return gather_integers_of<T, std::uint8_t>(args);
  case IntegerType::i8:
    return gather_integers_of<T, std::int8_t>(args);
  case IntegerType::u16:
    return gather_integers_of<T, std::uint16_t>(args);
  case IntegerType::i16:
    return gather_integers_of<T, std::int16_t>(args);
  case IntegerType::u32:
    return gather_integers_of<T, std::uint32_t>(args);
  case IntegerType::i32:
    return gather_integers_of<T, std::int32_t>(args);
  case IntegerType::u64:
    return gather_integers_of<T, std::uint64_t>(args);
  case IntegerType::i64:
    return gather_integers_of<T, std::int64_t>(args);
  }
}
