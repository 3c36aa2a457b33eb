// The stages of a step that call functions of the user's own (host_functions.h).
#include "engine/host_functions.h"

#include "engine/step.h"

namespace fastbp {

// `call` by worker 0 while the others wait, behind what all have made of the batch and in front of
// what they make of its result. Where it fails the pass is given up: by all, at their next look.
template <class T> template <class Call> void Step<T>::by_lead(Call call) {
  need(true);
  if (share_.id == 0 && !aborted() && !call()) c_.abort->store(true, std::memory_order_relaxed);
  meet();
  wrote_own_ = wrote_together_ = false;
}

// What is given begins with this worker's rows: worker 0's with the first of the batch, or of the part.
template <class T>
void Step<T>::host_activation(const Stage& stage, Rows<const T> z, Rows<const T> dy, Rows<T> out) {
  by_lead([&] {
    HostActivation<T> args;
    args.function = stage.function;
    args.rows = all_.rows, args.cols = stage.outputs;
    if (stage.sequence) args.steps = plan().steps;
    args.z = z.data, args.z_row = z.row;
    args.dy = dy.data, args.dy_row = dy.row;
    args.out = out.data, args.out_row = out.row;
    return c_.host.activation(c_.host.context, args);
  });
}

template <class T> void Step<T>::host_loss(const T* y, const Samples<T>& targets) {
  by_lead([&] {
    HostLoss<T> args;
    const bool whole = !c_.layout->sequences;
    const Window part = outputs_window();
    const index_t first = whole ? 0 : part.at * c_.layout->outputs;
    args.rows = whole ? all_.rows : part.rows, args.cols = c_.layout->outputs;
    args.counted = counted_;
    args.y = y + first;
    args.target = targets.target + first;
    if (targets.weight) args.weight = targets.weight + first;
    args.dy = at(plan().delta.back()) + first;
    args.block_loss = block_sums(0) + (whole ? 0 : first_block());
    return c_.host.loss(c_.host.context, args);
  });
  done(false);
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
