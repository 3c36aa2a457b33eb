// A network with one wide layer of hidden units (and perhaps a small third layer), cut along them: each
// worker keeps a network of its own with its part of the hidden units, in its own memory, and takes
// the whole batch through it.
//
//   stage 0  the worker has its columns of the kernel and the bias,
//   stage 1  the rows of the kernel that belong to these, and all of the bias,
//   stage 2  everything.
//
// In a step the workers exchange the sums of stage 1 over their parts of the inputs, once; all else,
// gradients and updates too, needs nothing from the others. Of a small batch that is far less than
// parameters and deltas that change hands. The sums go by chunks of the inputs (Stage::input_chunk),
// part by part, so the bits are those of the whole network.
#pragma once

#include <vector>

#include "core/arena.h"
#include "engine/plan.h"
#include "engine/step.h"

namespace fastbp {

template <class T> class Shards {
 public:
  // Among how many workers, of at most `threads`, batches of so many rows are to be shared in this
  // way; 1: not at all.
  static int worthwhile(const NetworkLayout& layout, index_t rows, int threads);

  // For runs of steps of at most `rows` rows with what `whole` has; allocates where there are more
  // rows or other workers than last time.
  void prepare(const StepContext<T>& whole, index_t rows, int workers);
  const StepContext<T>& context(int worker) const { return shards_[std::size_t(worker)].context; }
  // Copies the worker's part of the parameters and optimizer slots from the whole network, and back.
  void take(int worker) { copy(worker, true); }
  void give_back(int worker) { copy(worker, false); }

 private:
  struct Shard {
    NetworkLayout layout;
    Range hidden{0, 0};  // of the units
    Plan plan;
    Arena arena, parameters;
    ShardLink<T> link;
    StepContext<T> context;
  };
  void make(const NetworkLayout& whole, index_t rows, int workers);
  void copy(int worker, bool take);

  std::vector<Shard> shards_;
  ParameterBlock<T> whole_;
  const NetworkLayout* whole_layout_ = nullptr;
  int slots_ = 0;
  Arena sums_;
  index_t rows_ = 0;
};

extern template class Shards<float>;
extern template class Shards<double>;

}  // namespace fastbp
