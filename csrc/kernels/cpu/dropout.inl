// Dropout: the mask is drawn where it is used, forward and backward.

// The factors of a group of columns: 0 or `kept`.
template <class T>
FBP_FN static void dropout_factors(std::uint32_t block, const DropoutStream& stream,
                                   std::uint64_t seed, float threshold, T kept,
                                   T (&factor)[kDropoutGroup]) {
  using B = Bits<float>;
  // i + 2^23 ends in the bits of the integer i.
  const B lane = to_bits(lane_index(0.0f) + Vec<float>(0x1p23f)) - to_bits(Vec<float>(0x1p23f));
  B c[4] = {B(std::int64_t{block}) + lane, B(std::int64_t{stream.step}),
            B(std::int64_t{stream.layer}), B(std::int64_t{stream.purpose})};
  philox_rounds(c, seed);
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) {
    const auto keep = dropout_fraction(c[w]) >= Vec<float>(threshold);
    if constexpr (sizeof(T) == sizeof(float)) {
      select(keep, Vec<float>(kept), Vec<float>(0.0f)).store(factor + 16 * w);
    } else {
      alignas(64) float one[16];
      select(keep, Vec<float>(1.0f), Vec<float>(0.0f)).store(one);
      for (int i = 0; i < 16; ++i) factor[16 * w + i] = one[i] != 0 ? kept : T(0);
    }
  }
}

template <class T> static void dropout(const DropoutArgs<T>& args) {
  using V = Vec<T>;
  const float threshold = dropout_threshold(args.rate);
  const T kept = T(1 / (1 - args.rate));
  const index_t groups = parts_of(args.cols, kDropoutGroup);
  for (index_t i = 0; i < args.rows; ++i) {
    const T* x = args.x + i * args.x_row;
    T* y = args.y + i * args.y_row;
    for (index_t g = 0; g < groups; ++g) {
      alignas(64) T factor[kDropoutGroup];
      const index_t begin = g * kDropoutGroup, left = args.cols - begin;
      dropout_factors(std::uint32_t(((args.first_row + i * args.row_step) * groups + g) * 16),
                      args.stream, args.seed, threshold, kept, factor);
      for_each_vector<V>(
          1, left < kDropoutGroup ? left : kDropoutGroup, [&](index_t, index_t j, int lanes) {
            store(load<V>(x + begin + j, lanes) * V::load(factor + j), y + begin + j, lanes);
          });
    }
  }
}
