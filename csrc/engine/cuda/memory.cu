#include "engine/cuda/memory.h"

#include <cstdio>

namespace fastbp {
namespace cuda {
namespace {

constexpr const char* kNames[kPieces] = {"parameters, gradients and optimizer state",
                                         "activations and gradients of a training batch",
                                         "gradients of parts of a batch",
                                         "order of the rows, learning rates and losses of an epoch",
                                         "activations of a prediction",
                                         "the data",
                                         "the training data",
                                         "the validation data",
                                         "results on their way to the host",
                                         "16-bit copies of the parameters",
                                         "16-bit copies of activations",
                                         "16-bit copies of gradients",
                                         "sums of gradients of several batches",
                                         "averages of the parameters",
                                         "tables of the rules of updates",
                                         "states of sequences",
                                         "outputs of the steps that count",
                                         "cuBLASLt's workspace",
                                         "masks of relu for cuBLASLt"};

std::string mebibytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", double(bytes) / (1 << 20));
  return text;
}

}  // namespace

void* DeviceMemory::require(Piece piece, std::size_t bytes, bool* fresh) {
  Block& block = blocks_[std::size_t(piece)];
  if (bytes <= block.bytes) return block.memory.get();
  block = {};
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) != cudaSuccess) {
    cudaGetLastError();  // forgotten: the device goes on working
    throw Failure(FBP_OUT_OF_MEMORY, out_of_memory(piece, bytes));
  }
  block.memory = Owned<void*, cudaFree>(data);
  block.bytes = bytes;
  if (fresh) *fresh = true;
  return data;
}

std::string DeviceMemory::out_of_memory(Piece piece, std::size_t bytes) const {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  std::string text = "the device has no " + mebibytes(bytes) + " for " +
                     kNames[std::size_t(piece)] + "; " + mebibytes(free) + " of its " +
                     mebibytes(total) + " are free. The network's memory: ";
  for (std::size_t i = 0; i < kPieces; ++i) {
    const std::size_t size = i == std::size_t(piece) ? bytes : blocks_[i].bytes;
    if (size > 0) text += mebibytes(size) + " " + kNames[i] + ", ";
  }
  const bool rows = piece == Piece::data || piece == Piece::held || piece == Piece::held_validation;
  text.replace(text.size() - 2, 2,
               rows ? ". Fewer rows at a time need less" : ". A smaller batch_size needs less");
  return text;
}

}  // namespace cuda
}  // namespace fastbp
