// A table of vectors read by number: y of a row is the entries table[x_0], table[x_1], ... side by
// side.
//
// The gradient of the table is summed row by row in the order of the batch, each worker for columns
// of its own, so that no bit depends on the threads.
#include <cstring>
#include <limits>

#include "engine/step.h"

namespace fastbp {
namespace {

// The entry that x names; -1 where it names none, which the front has refused.
template <class T> index_t entry_of(const Stage& stage, T x) {
  return x >= T(0) && x < T(stage.parameter_rows) ? index_t(x) : -1;
}

}  // namespace

// y in this worker's rows; NaN for an entry that is none.
template <class T> void Step<T>::embed(const Stage& stage, Rows<const T> x, Rows<T> y) {
  const T* table = c_.parameters.w + stage.parameter_offset;
  const index_t width = stage.parameter_cols;
  for_row_chunks(own_rows(stage.sequence), stage.outputs, [&](index_t first, index_t count) {
    for (index_t i = first; i < first + count; ++i)
      for (index_t j = 0; j < stage.inputs; ++j) {
        const index_t entry = entry_of(stage, x.data[i * x.row + j]);
        T* to = y.data + i * y.row + j * width;
        if (entry >= 0)
          std::memcpy(to, table + entry * width, std::size_t(width) * sizeof(T));
        else
          for (index_t k = 0; k < width; ++k) to[k] = std::numeric_limits<T>::quiet_NaN();
      }
  });
}

// Of all rows in work, into the flat `gradient`, in this worker's columns of the table; with `update`
// the new parameters too.
template <class T> void Step<T>::embedding_gradient(std::size_t s, T* gradient, bool update) {
  const Stage& stage = c_.layout->stages[s];
  const index_t width = stage.parameter_cols, entries = stage.parameter_rows;
  const Range mine = split(width, 16, all_.share);
  const index_t n = mine.end - mine.begin;
  if (n <= 0) return;
  T* table = gradient + stage.parameter_offset + mine.begin;
  for (index_t e = 0; e < entries; ++e)
    std::memset(table + e * width, 0, std::size_t(n) * sizeof(T));
  const Rows<const T> x = input_of(s).from(all_.at);
  const BatchMatrix& dz = plan().delta[s];
  const T* d = at(dz, all_) + mine.begin;
  for (index_t i = 0; i < all_.rows * dz.places; ++i)
    for (index_t j = 0; j < stage.inputs; ++j) {
      const index_t entry = entry_of(stage, x.data[i * x.row + j]);
      if (entry < 0) continue;
      c_.kernels->add_rows(d + i * dz.row + j * width, n, 1, n, table + entry * width, true);
    }
  if (!update) return;
  const index_t begin = stage.parameter_offset + mine.begin;
  if (n == width) return update_range({begin, begin + entries * width});
  for (index_t e = 0; e < entries; ++e) update_range({begin + e * width, begin + e * width + n});
}

// The numbers of entries have no gradient: 0 in this worker's rows.
template <class T> void Step<T>::embedding_delta(const Stage& stage, Rows<T> dx) {
  for (index_t i = 0; i < own_rows(stage.sequence); ++i)
    std::memset(dx.data + i * dx.row, 0, std::size_t(stage.inputs) * sizeof(T));
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
