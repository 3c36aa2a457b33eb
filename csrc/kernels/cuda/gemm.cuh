// Matrix product with an epilogue, as a template: numerics in kernels/args.h. Included by the files
// that instantiate it, each compiled with its own treatment of denormals: hence no symbol leaves
// them.
//
// A block makes one tile of C. Its threads fetch slabs of A and of B into shared memory
// (gemm_operand.cuh), each adds a slab's products to its outputs in registers, and so on along k. No
// thread shares a sum with another, so the order is the CPU's: along k by FMA within a chunk. Sums of
// chunks are added up in shared memory, in order; several groups of threads may each make one.
#pragma once

#include "kernels/cuda/gemm_choice.h"
#include "kernels/cuda/gemm_operand.cuh"
#include "kernels/kernel_table.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

// Four large blocks leave a thread 128 registers, which is enough for sm_90's code alone. Elsewhere a
// multiprocessor has too little shared memory for as many, but on 10.0.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kMostResident = 4;
#else
constexpr int kMostResident = 2;
#endif

// warps_i x warps_j warps make a tile, each of 8 x 4 threads with r x c outputs, from slabs of
// `depth`. With two buffers the next slab is stored while this one is read. `resident`: blocks that
// registers are to leave room for on a multiprocessor.
template <class T, int number, int warps_i, int warps_j, int r, int c, int slab_depth, int buffers_,
          int resident_>
struct Tiling {
  static constexpr int rows = warps_i * 8 * r, cols = warps_j * 4 * c;
  static constexpr int thread_rows = r, thread_cols = c, warps_across = warps_j;
  static constexpr int depth = slab_depth, buffers = buffers_;
  static constexpr int resident = resident_ < kMostResident ? resident_ : kMostResident;
  static constexpr int threads = 32 * warps_i * warps_j;  // of a group
  static constexpr int unrolled = depth < 16 ? depth : 16;
  static constexpr int groups = kGemmShape<T>[number].groups;
  static_assert(rows == kGemmShape<T>[number].rows && cols == kGemmShape<T>[number].cols, "");
  template <Dense dense> using A = Operand<T, rows, depth, threads, dense>;
  template <Dense dense> using B = Operand<T, cols, depth, threads, dense>;
  static constexpr int a_pitch = A<Dense::either>::pitch, b_pitch = B<Dense::either>::pitch;
  static constexpr int slab_a = A<Dense::either>::values;
  static constexpr int slabs = slab_a + B<Dense::either>::values;
  static constexpr int tile_pitch = cols + kPack<T>;
  static constexpr int tile = rows * tile_pitch;
  static constexpr std::size_t shared_bytes(int of_groups) {
    return sizeof(T) * std::size_t(of_groups) * std::size_t(buffers * slabs + tile);
  }
};
// 64 sums a thread for the large ones, which then read 16 values from shared memory for 64
// multiply-adds; 32 in double, which take two registers each.
template <class T, int number> struct TilingOf;
template <> struct TilingOf<float, kLargeGemm> {
  using type = Tiling<float, kLargeGemm, 2, 2, 8, 8, 8, 2, 4>;
};
template <> struct TilingOf<double, kLargeGemm> {
  using type = Tiling<double, kLargeGemm, 1, 4, 8, 4, 8, 2, 2>;
};
template <> struct TilingOf<float, kMiddleGemm> {
  using type = Tiling<float, kMiddleGemm, 2, 2, 4, 4, 16, 2, 2>;
};
template <> struct TilingOf<double, kMiddleGemm> {
  using type = Tiling<double, kMiddleGemm, 1, 2, 4, 4, 16, 2, 3>;
};
template <> struct TilingOf<float, kSmallGemm> {
  using type = Tiling<float, kSmallGemm, 1, 2, 2, 2, 64, 1, 2>;
};
template <> struct TilingOf<double, kSmallGemm> {
  using type = Tiling<double, kSmallGemm, 1, 2, 2, 2, 32, 1, 2>;
};

// Which outputs of its group's tile a thread has: packs of rows, and of columns, that lie as far
// apart as the warp's threads reach. Of neighbouring lanes one pair has the same rows, the next the
// same columns, so that half a warp reads at once what it shares.
template <class T, class Is> struct Place {
  static constexpr int r_pack = Is::thread_rows < kPack<T> ? Is::thread_rows : kPack<T>;
  static constexpr int c_pack = Is::thread_cols < kPack<T> ? Is::thread_cols : kPack<T>;
  static constexpr int r_packs = Is::thread_rows / r_pack, c_packs = Is::thread_cols / c_pack;
  using Rows = Pack<T, r_pack>;
  using Cols = Pack<T, c_pack>;
  int row, col;  // the first

  FBP_DEVICE explicit Place(int thread) {
    const int warp = thread / 32, lane = thread % 32;
    row = warp / Is::warps_across * 8 * Is::thread_rows +
          ((lane >> 1 & 1) | (lane >> 2 & 6)) * r_pack;
    col = warp % Is::warps_across * 4 * Is::thread_cols + ((lane & 1) | (lane >> 1 & 2)) * c_pack;
  }
  FBP_DEVICE int row_of(int r) const { return row + r / r_pack * 8 * r_pack + r % r_pack; }
  FBP_DEVICE int col_of_pack(int q) const { return col + q * 4 * c_pack; }
};

template <class T, class Is> using Sums = Lane<T>[Is::thread_rows][Is::thread_cols];

template <class T, class Is>
FBP_DEVICE void add_unrolled(Sums<T, Is>& sum, const T* a, const T* b) {
  using P = Place<T, Is>;
  FBP_UNROLL(Is::unrolled)
  for (int p = 0; p < Is::unrolled; ++p) {
    typename P::Rows x[P::r_packs];
    typename P::Cols y[P::c_packs];
    for (int q = 0; q < P::r_packs; ++q)
      x[q] = *reinterpret_cast<const typename P::Rows*>(a + p * Is::a_pitch + q * 8 * P::r_pack);
    for (int q = 0; q < P::c_packs; ++q)
      y[q] = *reinterpret_cast<const typename P::Cols*>(b + p * Is::b_pitch + q * 4 * P::c_pack);
    for (int r = 0; r < Is::thread_rows; ++r)
      for (int c = 0; c < Is::thread_cols; ++c)
        sum[r][c] = fma(Lane<T>(x[r / P::r_pack].v[r % P::r_pack]),
                        Lane<T>(y[c / P::c_pack].v[c % P::c_pack]), sum[r][c]);
  }
}

// sum[r][c] += a[p][r] b[p][c] for p = 0, 1, ... depth - 1 at least, in order.
template <class T, class Is>
FBP_DEVICE void add_products(Sums<T, Is>& sum, const T* slab_a, const T* slab_b,
                             const Place<T, Is>& place, index_t depth) {
  const T* const a = slab_a + place.row;
  const T* const b = slab_b + place.col;
  FBP_UNROLL(1)
  for (int p = 0; p < Is::depth && p < depth; p += Is::unrolled)
    add_unrolled<T, Is>(sum, a + p * Is::a_pitch, b + p * Is::b_pitch);
}

// The thread's sums to its group's tile; on top of what is there, unless they are the first.
template <class T, class Is>
FBP_DEVICE void keep_sums(T* tile, const Sums<T, Is>& sum, bool first, const Place<T, Is>& place) {
  using P = Place<T, Is>;
  for (int r = 0; r < Is::thread_rows; ++r)
    for (int q = 0; q < P::c_packs; ++q) {
      auto* const at = reinterpret_cast<typename P::Cols*>(tile + place.row_of(r) * Is::tile_pitch +
                                                           place.col_of_pack(q));
      typename P::Cols z{};
      if (!first) z = *at;
      for (int c = 0; c < P::c_pack; ++c) {
        const Lane<T> s = sum[r][q * P::c_pack + c];
        z.v[c] = first ? s.v : (Lane<T>(z.v[c]) + s).v;
      }
      *at = z;
    }
}

// What `groups` groups have in their tiles, added up in the first one's, in order.
template <class T, class Is> FBP_DEVICE void add_groups(T* tiles, int groups) {
  __syncthreads();
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < Is::rows * Is::cols; e += blockDim.x) {
    T* const at = tiles + e / Is::cols * Is::tile_pitch + e % Is::cols;
    Lane<T> total(*at);
    for (int g = 1; g < groups; ++g) total = total + Lane<T>(at[g * Is::tile]);
    total.store(at);
  }
  __syncthreads();
}

// The tile's outputs from shared memory to the epilogue, by whole rows; of some at a time what the
// epilogue reads besides is loaded together.
template <class T, class Is, class Epilogue>
FBP_DEVICE void finish_tile(const GemmArgs<T>& g, index_t i0, index_t j0, const T* tile,
                            const Epilogue& epilogue) {
  constexpr int together = Epilogue::together;
  const int step = blockDim.x;
  const int rows = g.m - i0 < Is::rows ? int(g.m - i0) : Is::rows;
  const int cols = g.n - j0 < Is::cols ? int(g.n - j0) : Is::cols;
  FBP_UNROLL(1)
  for (int first = threadIdx.x; first < Is::rows * Is::cols; first += together * step) {
    typename Epilogue::Held held[together];
    bool there[together];
    FBP_UNROLL(together)
    for (int t = 0; t < together; ++t) {
      const int row = (first + t * step) / Is::cols, col = (first + t * step) % Is::cols;
      there[t] = row < rows && col < cols;
      if (there[t]) held[t] = epilogue.read(i0 + row, j0 + col);
    }
    FBP_UNROLL(together)
    for (int t = 0; t < together; ++t) {
      const int row = (first + t * step) / Is::cols, col = (first + t * step) % Is::cols;
      if (there[t]) epilogue.make(held[t], Lane<T>(tile[row * Is::tile_pitch + col]));
    }
    FBP_UNROLL(together)
    for (int t = 0; t < together; ++t) {
      const int row = (first + t * step) / Is::cols, col = (first + t * step) % Is::cols;
      if (there[t]) epilogue.store(i0 + row, j0 + col, held[t]);
    }
  }
}

// Of g the chunk is given. epilogue's read, make and store for every element z of C = A B + bias. Where the grid has several
// rows, block row y makes chunk y of the sum over k alone, and the epilogue is told by blockIdx.y.
template <class T, class Is, Dense dense_a, Dense dense_b, class Epilogue>
__global__ void __launch_bounds__(Is::threads* Is::groups, Is::resident)
    gemm_kernel(GemmArgs<T> g, Epilogue of_any_step) {
  FBP_SHARED(T, shared);
  const Epilogue epilogue = of_any_step.at_step();
  const int thread = threadIdx.x % Is::threads, group = threadIdx.x / Is::threads;
  const int groups = blockDim.x / Is::threads;
  T* const slabs = shared + group * (Is::buffers * Is::slabs);
  T* const tiles = shared + groups * (Is::buffers * Is::slabs);
  // A division of 64 bits would take as long as a slab.
  const unsigned tiles_across = unsigned(ceil_div(g.n, Is::cols));
  const index_t i0 = index_t(blockIdx.x / tiles_across) * Is::rows;
  const index_t j0 = index_t(blockIdx.x % tiles_across) * Is::cols;
  const Place<T, Is> place(thread);
  const index_t chunk = g.chunk;
  const index_t begin = blockIdx.y * chunk;
  const index_t end = gridDim.y > 1 && begin + chunk < g.k ? begin + chunk : g.k;
  index_t round = begin;  // where the first group's chunk begins
  do {
    const index_t first = round + group * chunk;
    // Groups that have no chunk go along.
    index_t left = end - first < chunk ? end - first : chunk;
    const index_t longest = end - round < chunk ? end - round : chunk;
    Sums<T, Is> sum;
    for (int c = 0; c < Is::thread_cols; ++c) {
      using P = Place<T, Is>;
      const index_t j = j0 + place.col_of_pack(c / P::c_pack) + c % P::c_pack;
      const Lane<T> start(first == 0 && g.bias && j < g.n ? g.bias[j] : T(0));
      for (int r = 0; r < Is::thread_rows; ++r) sum[r][c] = start;
    }
    // Beyond the chunk A is -0 and B 1: that leaves every sum as it is, -0 too.
    typename Is::template A<dense_a> a(g.a + i0 * g.a_row + first * g.a_col, g.a_row, g.a_col,
                                       g.m - i0, thread, T(-0.0));
    typename Is::template B<dense_b> b(g.b + j0 * g.b_col + first * g.b_row, g.b_col, g.b_row,
                                       g.n - j0, thread, T(1));
    typename Is::template A<dense_a>::Held held_a;
    typename Is::template B<dense_b>::Held held_b;
    if (longest > 0) {
      a.load(held_a, left);
      b.load(held_b, left);
      a.store(slabs, held_a);
      b.store(slabs + Is::slab_a, held_b);
      __syncthreads();
    }
    T* slab = slabs;
    FBP_UNROLL(1)
    for (index_t p = 0; p < longest; p += Is::depth) {
      const bool more = p + Is::depth < longest;
      if (more) {
        left -= Is::depth;
        a.load(held_a, left);
        b.load(held_b, left);
      }
      add_products<T, Is>(sum, slab, slab + Is::slab_a, place, longest - p);
      if (Is::buffers == 1) __syncthreads();
      if (Is::buffers == 2) slab = slab == slabs ? slabs + Is::slabs : slabs;
      if (more) {
        a.store(slab, held_a);
        b.store(slab + Is::slab_a, held_b);
      }
      __syncthreads();
    }
    keep_sums<T, Is>(tiles + group * Is::tile, sum, group > 0 || round == begin, place);
    if (groups > 1) {
      int busy = 1;
      while (busy < groups && round + busy * chunk < end) ++busy;
      add_groups<T, Is>(tiles, busy);
    }
    round += groups * chunk;
  } while (round < end);
  __syncthreads();
  finish_tile<T, Is>(g, i0, j0, tiles, epilogue);
}

inline cudaError_t processors(int* count) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

template <int number, Dense a, Dense b, class T, class Epilogue>
cudaError_t launch_shape(GemmArgs<T> args, const Epilogue& epilogue, index_t parts, int groups,
                         cudaStream_t stream) {
  using Is = typename TilingOf<T, number>::type;
  const auto kernel = gemm_kernel<T, Is, a, b, Epilogue>;
  const index_t tiles = gemm_tiles(kGemmShape<T>[number], args.m, args.n);
  // C alone would be 1 TiB; a batch, 16 million rows.
  if (tiles > kMaxGridX || parts > kMaxGridY) return cudaErrorInvalidConfiguration;
  if (args.chunk <= 0) args.chunk = k_chunk(args.k);
  const std::size_t bytes = Is::shared_bytes(groups);
  if (Is::shared_bytes(Is::groups) > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(Is::shared_bytes(Is::groups)));
    if (error != cudaSuccess) return error;
  }
  FBP_LAUNCH(kernel, dim3(unsigned(tiles), unsigned(parts)), dim3(unsigned(groups * Is::threads)),
             bytes, stream)(args, epilogue);
  return cudaGetLastError();
}

// Of GemmArgs are read: sizes, chunk, a, b, bias. `parts` rows of blocks: 1, or a block for every
// tile and chunk.
template <Dense a, Dense b, class T, class Epilogue>
cudaError_t launch_gemm(const GemmArgs<T>& args, const Epilogue& epilogue, index_t parts,
                        cudaStream_t stream) {
  if (args.m <= 0 || args.n <= 0) return cudaSuccess;
  int count = 0;
  const cudaError_t error = processors(&count);
  if (error != cudaSuccess) return error;
  const index_t chunk = args.chunk > 0 ? args.chunk : k_chunk(args.k);
  const index_t chunks = args.k > 0 ? parts_of(args.k, chunk) : 1;
  const GemmChoice choice = choose_gemm<T>(args.m, args.n, chunk, chunks, parts > 1, count);
  if (choice.shape == kLargeGemm)
    return launch_shape<kLargeGemm, a, b>(args, epilogue, parts, choice.groups, stream);
  if (choice.shape == kMiddleGemm)
    return launch_shape<kMiddleGemm, a, b>(args, epilogue, parts, choice.groups, stream);
  return launch_shape<kSmallGemm, a, b>(args, epilogue, parts, choice.groups, stream);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
