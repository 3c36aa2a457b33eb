// build: avx512 -O0
// Products of the avx512 kernels: every kind (short, dots, thin, by tiles, with A or B packed, outer products, updates among
// the sums) has the bits of the promised order, touches its matrices alone, and calls its operation once for each element.

#include "products.h"

#include "kernels/cpu/blocking.h"
#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/two_products.h"

#include "kernels/cpu/avx512_tiles.inl"

namespace fastbp::avx512 {
#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/gemm.inl"
}  // namespace fastbp::avx512

namespace fastbp {
static bool two_products = false;  // set by main()
bool two_products_a_clock() { return two_products; }
}  // namespace fastbp

using namespace products;

namespace {

#define FBP_UPDATE(O) avx512::update<T, O>,
template <class T> constexpr TileOp<T> kUpdates[] = {FBP_OPTIMIZERS(FBP_UPDATE)};
#undef FBP_UPDATE
template <class T> constexpr GemmKernel<T> kKernel{avx512::gemm<T>, avx512::kGemmScratch<T>};

template <class T> void plain(const Shape& shape) {
  Product<T> product(shape, kKernel<T>);
  product.run();
  product.check("plain", product.c);
}

// An operation that stores what it is given.
template <class T> struct Seen {
  Matrix<T> values;
  Matrix<T> times;
};
template <class T>
void see(const void* context, const T* c, index_t c_row, index_t i0, index_t rows, index_t j0,
         index_t cols) {
  Seen<T>& seen = *static_cast<Seen<T>*>(const_cast<void*>(context));
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) {
      // With contiguous_op rows may come as one.
      const index_t at = (i0 + i) * seen.values.length + j0 + j;
      const index_t row = at / seen.values.length, column = at % seen.values.length;
      seen.values.line(row)[column] = c[i * c_row + j];
      seen.times.line(row)[column] += 1;
    }
}

template <class T> void with_operation(const Shape& shape, bool discard, bool contiguous) {
  Product<T> product(shape, kKernel<T>);
  Seen<T> seen{{shape.m, shape.n, 0}, {shape.m, shape.n, 0}};
  for (T& times : seen.times.values) times = 0;
  product.args.op = see<T>;
  product.args.context = &seen;
  product.args.discard_c = discard;
  product.args.contiguous_op = contiguous && shape.c_gap == 0;
  product.run();
  product.check("operation", seen.values);
  if (!discard) product.check("operation's product", product.c);
  bool once = true;
  for (T times : seen.times.values) once &= times == 1;
  FBP_EXPECT(once);
  if (!once) product.say("operation not once");
}

// The gradient of a kernel with its update: of every optimizer what its tile operation makes of the stored gradient.
template <class T> void with_update(const Shape& shape, int optimizer) {
  Product<T> product(shape, kKernel<T>);
  Matrix<T> w(shape.m, shape.n, 0), slots[2] = {w, w};
  w.fill();
  for (Matrix<T>& slot : slots) {
    slot.fill();
    for (T& value : slot.values) value = std::fabs(value);
  }
  Matrix<T> right_w = w, right_slots[2] = {slots[0], slots[1]};
  const auto tile = [&](Matrix<T>& weights, Matrix<T>* of) {
    UpdateTile<T> update{weights.values.begin(), {}, weights.stride, {}};
    for (int k = 0; k < optimizer_slots(optimizer); ++k) update.slot[k] = of[k].values.begin();
    for (T& value : update.hyper.value) value = T(0.125);
    return update;
  };
  const UpdateTile<T> update = tile(w, slots), right = tile(right_w, right_slots);
  product.args.op = kUpdates<T>[optimizer];
  product.args.optimizer = optimizer;
  product.args.context = &update;
  product.args.discard_c = true;
  product.run();
  Matrix<T> gradient(shape.m, shape.n, 0);
  for (index_t i = 0; i < shape.m; ++i)
    for (index_t j = 0; j < shape.n; ++j) gradient.line(i)[j] = expected(product.args, i, j);
  product.args.op(&right, gradient.values.begin(), shape.n, 0, shape.m, 0, shape.n);
  const bool all = w == right_w && slots[0] == right_slots[0] && slots[1] == right_slots[1];
  FBP_EXPECT(all);
  if (!all) product.say("update");
}

template <class T> void many(int shapes) {
  for (int turn = 0; turn < shapes; ++turn) {
    plain<T>(random_shape(300000));
    const std::uint32_t bits = random_word();
    with_operation<T>(random_shape(100000), bits & 1, bits & 2);
  }
}

// What only large matrices get.
template <class T> void large() {
  constexpr index_t page = 4096 / index_t(sizeof(T));
  plain<T>({61, 70, 300, true, false, page - 61});  // A by columns, pages apart: packed
  plain<T>({61, 70, 300, true, true, page - 61, 0, 3, true, 2});
  plain<T>({50, 9, page, false, false});                       // A by rows at multiples of a page
  plain<T>({50, 70, 65, false, false, 0, 2 * page, 1, true});  // B in pages: packed
  plain<T>({97, 70, 300, false, false, 0, page - 70});
  plain<T>({3, 200, 70, false, false, 0, page, 0, true});  // long rows of B, few of A
  plain<T>({200, 3, 70, true, true, page, 0, 2});
  plain<T>({5, 7, 3000, false, true, 3, 5, 1, true, 2});  // dots
  plain<T>({12, 12, 2500, false, true});
  plain<T>({1, 2, 3000, false, true, 0, 2, 0, true});
  plain<T>({2, 3, 2500, false, true, 0, 2, 0, true});
  plain<T>({3, 9, 5000, false, true});
  plain<T>({(8 << 20) / 1100 / index_t(sizeof(T)) + 1, 1101, 3});  // more than caches hold
  plain<T>({(8 << 20) / 1100 / index_t(sizeof(T)) + 1, 1101, 2, true, true, 0, 0, 0, true, 3});
}

// What is packed, or updated in strips of rows, only where a core makes two products a clock.
template <class T> void quickly_packed() {
  constexpr index_t width = 64 / index_t(sizeof(T)), page = 64 * width;
  plain<T>({72, 9 * width, 40});  // B across lines or, with `line`, from line to line
  plain<T>({515, 9 * width, 33, false, false, 0, 7 * width});
  plain<T>({50, 9 * width, 70, false, false, 0, page - 9 * width});  // pages apart
  plain<T>({257, 5 * width, 300, true});                             // A by columns, 1 KiB apart
  plain<T>({7, 5 * 4 * width + 3, 300, false, false, 0,
            (16 << 20) / 300 / index_t(sizeof(T))});                             // from memory
  with_update<T>({303, 4 * width + 1, 260, true, false, 2, 3, 0, false, 2}, 1);  // in strips
  with_update<T>({600, 5 * 64 - 3, 2, true}, kOptimizerCount - 1);               // from end to end
}

template <class T> void updates() {
  constexpr index_t width = 4 * 64 / index_t(sizeof(T));  // of a tile
  for (int optimizer = 0; optimizer < kOptimizerCount; ++optimizer)
    for (index_t k : {1, 3, 4, 17, 24, 300})
      for (index_t m : {8, 9, 13, 31})
        for (index_t workers : {1, 2})
          with_update<T>({m, width + (m == 9 ? 5 : 0), k, true, false, 0, 0, 0, false, workers},
                         optimizer);
}

template <class T> void all_products() {
  two_products = false;
  many<T>(400);
  large<T>();
  updates<T>();
  two_products = true;
  many<T>(50);
  quickly_packed<T>();
}

}  // namespace

int main() {
  all_products<float>();
  all_products<double>();
  return fbp_test_result();
}
