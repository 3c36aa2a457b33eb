// The rules of updates (engine/update_rules.h) on a device: the flat parameters cut into pieces of one
// rule each, the arrays that rules need besides, and what a step enqueues behind its backward pass.
#pragma once

#include <vector>

#include "engine/cuda/memory.h"
#include "engine/layout.h"
#include "engine/update_rules.h"
#include "kernels/cuda/train/finish.h"

namespace fastbp {
namespace cuda {

template <class T> class Rules {
 public:
  Rules(const NetworkLayout& layout, DeviceMemory& memory) : layout_(layout), memory_(memory) {}

  bool scaled = false;       // the gradient is of a scaled loss
  bool may_give_up = false;  // a step may end in its backward pass

  const UpdateRules& of() const { return rules_; }
  // Whether a gradient has to be whole before any parameter changes.
  bool need_whole_gradient() const { return scaled || may_give_up || rules_.need_whole_gradient(); }
  bool penalize() const { return penalize_; }
  // The factors of the learning rate that parameters have, the first of them 1.
  index_t variant_count() const { return index_t(variants_.size()); }
  double variant(index_t v) const { return variants_[std::size_t(v)]; }
  // As ParameterBlock's; null until they are wanted for the first time, and kept from then on.
  T* accumulated() const { return accumulated_; }
  T* average() const { return average_; }

  // Arrays that were not wanted before begin with 0.
  void set(const UpdateRules& rules, cudaStream_t stream);
  // Other layers are frozen now: these have no part in an update that is being gathered.
  void set_frozen(cudaStream_t stream);
  // Whether parameters differ in what happens to them: there are tables.
  bool differ() const { return tables_.pieces != nullptr; }
  FinishArgs<T> arguments(FinishUse use, const FinishState<T>& state) const;
  // From the whole gradient; in a step, into the parameters.
  void enqueue(FinishUse use, const FinishState<T>& state, cudaStream_t stream) const;

 private:
  T* provide(Piece piece, bool wanted, bool had, T* array, cudaStream_t stream);
  void lay_out(cudaStream_t stream);
  void take_limits();
  void add_piece(index_t begin, index_t end, const ParameterRange* range, bool trained);
  void add_ranges(index_t begin, index_t end, bool trained);
  int variant_of(double rate);

  const NetworkLayout& layout_;
  DeviceMemory& memory_;
  UpdateRules rules_;
  bool penalize_ = false;
  std::vector<double> variants_{1.0};
  std::vector<RulePiece<T>> pieces_;
  std::vector<index_t> first_piece_;
  std::vector<LimitedColumns<T>> limits_;
  T *accumulated_ = nullptr, *average_ = nullptr;
  FinishTables<T> tables_;
};

extern template class Rules<float>;
extern template class Rules<double>;

}  // namespace cuda
}  // namespace fastbp
