// What batches need on the device besides a network's parameters: the memory of their plans, for training and
// for inference, the shadows of their matrices (shadows.h), the partial sums of gradients, the states of
// sequences. Each piece is made when a call first needs it, and grows.
#pragma once

#include <type_traits>
#include <utility>

#include "engine/cuda/chain.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/step_graph.h"

namespace fastbp {
namespace cuda {

template <class T> class BatchMemory {
 public:
  Workspace training, inference;

  BatchMemory(const NetworkLayout& layout, Chain<T>& chain, DeviceMemory& memory)
      : layout_(layout), chain_(chain), memory_(memory) {}

  // Operands of products are rounded to 16 bits from now on.
  void round_to(Half kind) {
    shadows_.set_kind(kind);
    chain_.product_mode.shadows = &shadows_;
    shadows_.lay_out_weights(layout_);
    place(shadows_.weights, Piece::shadow_weights);
  }
  // Parameters were written by other hands than a step's stages: the weights' shadows are not theirs.
  void parameters_changed() { stale_ = true; }

  void use_training(index_t rows, index_t steps) {
    use_products(rows, steps, true);
    const BatchShape shape = shape_of(rows, steps);
    if (!shape.fits(training.plan)) {
      training = {};
      provide(training, make_training_plan(layout_, shape, sizeof(T), PlanUse::device),
              Piece::training);
    }
    const index_t parts = chain_.partials_of(rows);
    if (parts > 1 || layout_.sequences) use_partials(parts);
  }
  void use_inference(index_t rows, index_t steps) {
    use_products(rows, steps, false);
    if (inference.plan.capacity >= rows && inference.plan.steps == steps) return;
    inference = {};
    provide(inference,
            make_inference_plan(layout_, shape_of(rows, steps), sizeof(T), false, PlanUse::device),
            Piece::inference);
  }
  // Room for the outputs that count, where some do not.
  void use_closed(Workspace& space, index_t steps) {
    const std::size_t rows = checked_product(2, array_bytes<T>(space.plan.capacity, steps));
    space.closed = memory_.require(Piece::closed, checked_product(rows, layout_.outputs));
  }
  void use_partials(index_t parts) {
    const std::size_t bytes = array_bytes<T>(parts, layout_.parameter_count);
    bool fresh = false;
    chain_.partials = static_cast<T*>(memory_.require(Piece::partials, bytes, &fresh));
    // The padding between the layers' blocks is added up too.
    if (fresh) check(cudaMemsetAsync(chain_.partials, 0, bytes, chain_.stream), "clearing memory");
  }
  // The states of so many sequences on the device, where the caller has any, with room for as many behind
  // them; and back.
  std::size_t state_bytes(index_t rows) const {
    return array_bytes<T>(rows, layout_.carried_width);
  }
  T* take_states(const void* states, index_t rows) {
    if (!states) return nullptr;
    T* const there = static_cast<T*>(memory_.require(Piece::states, 2 * state_bytes(rows)));
    copy(there, states, state_bytes(rows), cudaMemcpyHostToDevice);
    return there;
  }
  void return_states(void* states, const T* there, index_t rows) {
    if (states) copy(states, there, state_bytes(rows), cudaMemcpyDeviceToHost);
  }

  // What a training step's launches depend on of all this.
  void add_to(StepGraphs::Key& key) const {
    const ShadowRoom &input = shadows_.input_room, &delta = shadows_.delta_room;
    key.add(training.memory, training.closed, training.plan.capacity, training.plan.steps,
            chain_.partials);
    key.add(shadows_.input.memory, input.rows, input.places);
    key.add(shadows_.delta.memory, delta.rows, delta.places);
  }

 private:
  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, chain_.stream), "a copy");
  }
  static BatchShape shape_of(index_t rows, index_t steps) {
    BatchShape shape;
    shape.rows = shape.window = rows;
    shape.steps = steps;
    return shape;
  }
  // The space's memory, for the plan that was made.
  void provide(Workspace& space, Plan plan, Piece piece) {
    Workspace fresh;
    fresh.plan = std::move(plan);
    if (layout_.sequences) lay_out_scans(fresh, layout_, sizeof(T));
    fresh.memory = static_cast<unsigned char*>(memory_.require(piece, fresh.plan.arena.total()));
    space = std::move(fresh);
    chain_.write_ones(space);
  }

  // What products on tensor cores need. Of those that are made exactly nothing is left to another library.
  void use_products(index_t rows, index_t steps, bool backward) {
    const index_t places = index_t(checked_product(rows, steps));
    if (chain_.product_mode.shadows) use_shadows({rows, places}, backward);
    if (chain_.product_mode.on_tensor_cores()) chain_.product_mode.blas->prepare(places, backward);
  }
  void place(ShadowSet& set, Piece piece) {
    set.memory = static_cast<unsigned char*>(memory_.require(piece, set.bytes()));
  }
  // Room for the shadows of so much; those of the weights are up to date afterwards.
  void use_shadows(const ShadowRoom& asked, bool backward) {
    if constexpr (std::is_same_v<T, float>) {
      if (!shadows_.input_room.holds(asked)) {
        Shadows larger = shadows_;
        larger.lay_out_input(layout_, shadows_.input_room.and_of(asked));
        shadows_.input_room = {};
        place(larger.input, Piece::shadow_input);
        check(larger.write_ones(layout_, chain_.stream), "making shadows");
        shadows_ = larger;
      }
      if (backward && !shadows_.delta_room.holds(asked)) {
        Shadows larger = shadows_;
        larger.lay_out_delta(layout_, shadows_.delta_room.and_of(asked));
        shadows_.delta_room = {};
        place(larger.delta, Piece::shadow_delta);
        shadows_ = larger;
      }
      if (stale_)
        check(shadows_.refresh(layout_, chain_.arrays.parameters.w, chain_.stream),
              "making shadows");
      stale_ = false;
    }
  }

  const NetworkLayout& layout_;
  Chain<T>& chain_;
  DeviceMemory& memory_;
  Shadows shadows_;
  bool stale_ = true;  // the weights' shadows
};

}  // namespace cuda
}  // namespace fastbp
