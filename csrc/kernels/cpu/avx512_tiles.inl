// What the avx512 kernels state to the generic sources, behind the vector wrapper.
namespace fastbp::avx512 {
static constexpr int kTileRows[] = {16, 12, 8, 6};  // blocking.h
static constexpr int kHalfTileRows = 0;
static constexpr bool kUpdatesGoAlong = true;
template <class T> using Item = Vec<T>;  // elementwise.inl
}  // namespace fastbp::avx512
