// The device memory of a network, in a few named pieces.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {

enum class Piece {
  parameters,
  training,
  partials,
  epoch,
  inference,
  data,
  held,
  held_validation,
  result,
  shadow_weights,
  shadow_input,
  shadow_delta,
  accumulated,
  average,
  rules,
  states,
  closed,
  product_workspace,
  product_masks
};
inline constexpr std::size_t kPieces = 19;

class DeviceMemory {
 public:
  // The piece with at least so many bytes, at the same place as before unless it has to grow; then
  // *fresh becomes true where given. Work that uses the old place must have ended. A Failure of
  // FBP_OUT_OF_MEMORY has all pieces in its text.
  void* require(Piece piece, std::size_t bytes, bool* fresh = nullptr);
  void release(Piece piece) { blocks_[std::size_t(piece)] = {}; }

 private:
  std::string out_of_memory(Piece piece, std::size_t bytes) const;

  struct Block {
    Owned<void*, cudaFree> memory;
    std::size_t bytes = 0;
  };
  std::array<Block, kPieces> blocks_;
};

}  // namespace cuda
}  // namespace fastbp
