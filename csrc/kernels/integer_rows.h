// Rows of integers that become the numbers of a batch as they are gathered.
#pragma once

#include "core/types.h"

namespace fastbp {

// In pairs by size, the unsigned one first.
enum class IntegerType { u8, i8, u16, i16, u32, i32, u64, i64 };

inline index_t integer_bytes(IntegerType type) { return index_t(1) << (int(type) / 2); }

// to[i, j] = (x[order[i], j] - center[j]) factor[j], x rounded to T; x[i, j] where order is null, x alone
// where factor is null.
template <class T> struct IntegerGatherArgs {
  const void* from = nullptr;
  IntegerType type = IntegerType::u8;
  const std::int64_t* order = nullptr;
  index_t rows = 0, cols = 0;
  index_t from_row = 0;  // elements from one row to the next
  T* to = nullptr;
  index_t to_row = 0;
  const T* center = nullptr;
  const T* factor = nullptr;
};

}  // namespace fastbp
