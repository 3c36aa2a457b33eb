// Random numbers by vectors; dropout, whose mask is drawn where it is used, forward and backward.

// Words of 16 blocks from `block`, a multiple of 16, under a counter that goes on with these words.
FBP_FN static void draw_blocks(std::uint64_t seed, std::uint32_t block, std::uint32_t c1,
                               std::uint32_t c2, std::uint32_t c3, Bits<float> (&c)[4]) {
  using B = Bits<float>;
  // i + 2^23 ends in the bits of the integer i.
  const B lane = to_bits(lane_index(0.0f) + Vec<float>(0x1p23f)) - to_bits(Vec<float>(0x1p23f));
  c[0] = B(std::int64_t{block}) + lane;
  c[1] = B(std::int64_t{c1}), c[2] = B(std::int64_t{c2}), c[3] = B(std::int64_t{c3});
  philox_rounds(c, seed);
}

// core/random.h's by vectors.
static void random_batch(const RandomStream& stream, std::uint64_t batch, std::uint32_t* words) {
  for (int half = 0; half < kBatchBlocks; half += 16) {
    const std::uint64_t block = batch * kBatchBlocks + std::uint64_t(half);
    Bits<float> c[4];
    draw_blocks(stream.seed, std::uint32_t(block), std::uint32_t(block >> 32), stream.stream,
                stream.purpose, c);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      alignas(64) float drawn[16];
      from_bits(c[w]).store(drawn);
      __builtin_memcpy(words + w * kBatchBlocks + half, drawn, sizeof drawn);
    }
  }
}

// The factors of a group of columns: 0 or `kept`.
template <class T>
FBP_FN static void dropout_factors(std::uint32_t block, const DropoutStream& stream,
                                   std::uint64_t seed, float threshold, T kept,
                                   T (&factor)[kDropoutGroup]) {
  Bits<float> c[4];
  draw_blocks(seed, block, stream.step, stream.layer, stream.purpose, c);
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
