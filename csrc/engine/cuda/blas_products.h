// The products of dense stages by cuBLASLt where it is faster than the library's own kernels: of
// rounded operands alone, whose bits nobody is promised across devices.
//
// A product may be made in several ways: by the own kernel, whose epilogue does all that follows; by
// cuBLASLt, and a kernel for what follows (kernels/cuda/train/stored.h); by cuBLASLt with an epilogue
// of its own. When a product of its sizes first comes up, each way is taken a few times, on the
// operands at hand; the fastest whose result is that of the own kernel serves the process from then
// on. Never while a step is recorded, which a step is not before it has been taken once.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/cuda/blas_calls.h"
#include "engine/cuda/memory.h"
#include "engine/layout.h"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {

// Arguments as those of the own kernels (kernels/cuda/train/tensor.h, tf32.h).
struct BlasForward {
  std::size_t stage = 0;
  index_t m = 0, n = 0, k = 0;
  BlasOperands in;
  const float* bias = nullptr;
  float* z = nullptr;  // where the derivative needs it
  index_t z_row = 0;
  int activation = 0;
  ActivationTile<float> tile;  // its place may be written whether it is read or not
  float* y_left = nullptr;     // tile.out, or null where the shadow is enough, or sums with bias
  Shadow y;
  bool training = false;
};
struct BlasDelta {
  std::size_t below = 0;  // the stage whose dz this is
  index_t m = 0, n = 0, k = 0;
  BlasOperands in;
  int activation = 0;
  ActivationTile<float> tile;
  Shadow dz;  // where there is one it alone is read, though tile.out may be written
  Shadow y;   // of the outputs of that stage, where dz has one
};
// The last of its m rows is the bias's, where there is one.
struct BlasGradient {
  index_t m = 0, n = 0, k = 0;
  BlasOperands in;
  bool bias = false;
  float* c = nullptr;  // contiguous
  index_t parts = 1;   // that the own kernel takes the sum in
};
struct BlasUpdate {
  BlasGradient gradient;
  int optimizer = 0;
  Parameters<float> to;
  StepTable<float> steps;
  Shadow w;
};

// What the process has measured, a line for each product; for fastbp.info.
std::string blas_choices();

class BlasProducts {
 public:
  using Own = std::function<cudaError_t()>;
  using OwnUpdate = std::function<cudaError_t(const Parameters<float>&, Shadow)>;

  BlasProducts(const NetworkLayout& layout, DeviceMemory& memory, int device)
      : layout_(layout), memory_(memory), device_(device) {}

  // Before each pass over so many rows: whether cuBLASLt may serve, and the memory that it wants.
  void prepare(index_t rows, bool training);
  // Changes where a recording of a step would do something else.
  std::uint64_t version() const;

  cudaError_t forward(const BlasForward& product, const Own& own, cudaStream_t stream);
  cudaError_t delta(const BlasDelta& product, const Own& own, cudaStream_t stream);
  cudaError_t store(const BlasGradient& product, const Own& own, cudaStream_t stream);
  // own_store leaves the gradient where the product has it.
  cudaError_t update(const BlasUpdate& product, const OwnUpdate& own, const Own& own_store,
                     cudaStream_t stream);

 private:
  // A way to make a product. Where it maps values itself, it is tried with a bias of NaN too: not
  // every such function keeps them.
  struct Way {
    std::string name;
    std::function<cudaError_t()> run;
    std::function<cudaError_t(const float* bias)> with_bias = {};
  };
  // Some rows of what a product makes: of the shadow where there is one.
  struct Sample {
    float* at = nullptr;
    index_t row = 0, rows = 0, cols = 0;
    Shadow shadow = {};
  };
  using Key = std::vector<std::uint64_t>;

  bool serves(index_t m, index_t n, index_t k) const;
  Key key_of(BlasForm form, index_t m, index_t n, index_t k, const BlasOperands& in) const;
  int known(const Key& key) const;
  int measure(const Key& key, const std::vector<Way>& ways, const Own& right, const Sample& sample,
              const std::string& name, cudaStream_t stream);
  cudaError_t take(const Key& key, const std::vector<Way>& ways, const Sample& sample,
                   const std::string& name, cudaStream_t stream, int* taken = nullptr);
  void give_up(const Key& key);
  void add_ways(std::vector<Way>& ways, const BlasProduct& product, const std::string& name,
                const std::function<cudaError_t()>& rest, bool maps_values, cudaStream_t stream);
  void add_forward_ways(std::vector<Way>& ways, const BlasForward& f, cudaStream_t stream);
  void add_delta_ways(std::vector<Way>& ways, const BlasDelta& d, cudaStream_t stream);
  void add_gradient_ways(std::vector<Way>& ways, const BlasGradient& g,
                         const std::function<cudaError_t()>& rest, cudaStream_t stream);
  BlasEpilogue forward_epilogue(const BlasForward& f) const;
  BlasEpilogue delta_epilogue(const BlasDelta& d) const;
  static std::vector<float> fetched(const Sample& sample, cudaStream_t stream);
  static void spoil(const Sample& sample, cudaStream_t stream);

  // Of a stage with relu, a bit for each output: whether it is positive.
  struct Mask {
    std::size_t offset = 0;
    index_t row = 0;       // bits
    bool written = false;  // in the pass that is under way
  };
  bool lay_out_masks(index_t rows);

  const NetworkLayout& layout_;
  DeviceMemory& memory_;
  int device_;
  BlasService service_;
  BlasCalls calls_;
  std::vector<Mask> masks_;
  unsigned char* mask_memory_ = nullptr;
  index_t mask_rows_ = 0;
  bool ready_ = false;
};

}  // namespace cuda
}  // namespace fastbp
