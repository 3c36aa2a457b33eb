// Sizes are sums and products of what a user asked for: std::bad_alloc where they overflow.
#pragma once

#include "core/arena.h"
#include "core/types.h"

namespace fastbp {

inline index_t size_sum(index_t a, index_t b) {
  return index_t(checked_sum(std::size_t(a), std::size_t(b)));
}
inline index_t size_product(index_t a, index_t b) {
  return index_t(checked_product(std::size_t(a), std::size_t(b)));
}
inline index_t round_up(index_t n, index_t multiple) {
  return size_sum(n, multiple - 1) / multiple * multiple;
}

}  // namespace fastbp
