// The epochs of a run that are under way: what the device has of each when it begins (order of the
// rows, hyper-parameters of every step, a counter), and what comes back when it ends (sums of loss and
// metrics). One may be prepared while another runs.
#pragma once

#include <algorithm>
#include <numeric>

#include "core/arena.h"
#include "core/random.h"
#include "engine/cuda/chain.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/network.h"
#include "engine/cuda/pace.h"
#include "engine/cuda/rules.h"

namespace fastbp {
namespace cuda {

// How a run's losses and metrics are counted.
struct Measures {
  index_t rows = 0;     // of a batch
  index_t outputs = 1;  // rows of output for each: steps
  index_t batches = 0;  // of an epoch
  index_t blocks = 0;   // of a batch
  index_t parts = 0;    // of a batch
  index_t places = 0;   // the loss and the metrics
  index_t epochs = 1;   // that are prepared together; `batches` are those of all

  index_t sums() const { return places * batches * blocks; }
};

template <class T> class Epochs {
 public:
  // What the host has of an epoch, or a part of one, that is under way.
  struct Slot {
    PinnedMemory sent, sums, scale;  // sent: laid out as the device's
    Event done;
    index_t epoch = 0, first_row = 0, batches = 0;
    bool under_way = false;
  };

  Epochs(const NetworkLayout& layout, Chain<T>& chain, DeviceMemory& memory)
      : layout_(layout), chain_(chain), memory_(memory) {}

  // From so many rows on, the device draws orders.
  static constexpr index_t kManyRows = index_t(1) << 15;

  OptimizerSpec optimizer;
  // Of a scaled loss, the updates that have been left out: as far as the host knows.
  std::int64_t skipped = 0;

  // Room for what an epoch has beside its plan; or several small ones, of whole batches, together: for
  // the device they are one, of more rows.
  Measures prepare(const RunArgs& run, index_t rows, index_t together = 1) {
    Measures m;
    m.rows = rows;
    m.epochs = together;
    m.batches = together * parts_of(run.samples.n, rows);
    m.outputs = layout_.output_places(run.samples.steps);
    const index_t rest = run.samples.n % rows;
    m.blocks = std::max(layout_.measure_blocks(rows, run.samples.steps),
                        layout_.measure_blocks(rest, run.samples.steps));
    m.places = 1 + index_t(run.metrics.size());
    ArenaLayout arena;
    // Of updates that may be left out also those of an epoch that is under way: which of them, the host
    // does not know when the next one begins.
    const index_t steps = !run.update ? 0 : chain_.scaling ? 2 * m.batches + 1 : m.batches;
    // What goes there in one copy comes first.
    const std::size_t counter = arena.add(sizeof(RunCounter));
    // An order that is not drawn on the device goes there with the rest.
    const bool ordered = run.shuffle || together > 1, drawn = draws_order(run);
    const index_t rows_in_order = ordered ? together * run.samples.n : 0;
    order_at_ = arena.add(array_bytes<std::int64_t>(drawn ? 0 : rows_in_order));
    const bool closed = closes(run.samples);
    if (closed) m.parts = std::max(parts_of(rows, chunk_of(rows)), parts_of(rest, chunk_of(rest)));
    counted_at_ = arena.add(array_bytes<CountedRows<T>>(closed ? m.batches : 0, m.parts));
    hyper_at_ = arena.add(array_bytes<StepHyper<T>>(steps, chain_.rules->variant_count()));
    sent_bytes_ = arena.total();
    if (drawn) order_at_ = arena.add(array_bytes<std::int64_t>(rows_in_order));
    const std::size_t choices = arena.add(array_bytes<std::int32_t>(drawn ? 2 * rows_in_order : 0));
    const std::size_t sums = arena.add(array_bytes<double>(m.places, m.batches * m.blocks));
    const std::size_t penalties = arena.add(array_bytes<double>(m.batches));
    auto* base = static_cast<unsigned char*>(memory_.require(Piece::epoch, arena.total()));
    RunTables<T>& tables = chain_.tables;
    order_ = ordered ? reinterpret_cast<std::int64_t*>(base + order_at_) : nullptr;
    choices_ = reinterpret_cast<std::int32_t*>(base + choices);
    tables.order = order_;
    tables.counter = reinterpret_cast<RunCounter*>(base + counter);
    tables.steps = {reinterpret_cast<StepHyper<T>*>(base + hyper_at_), tables.counter};
    tables.sums = reinterpret_cast<double*>(base + sums);
    tables.penalties = reinterpret_cast<double*>(base + penalties);
    tables.counted = closed ? reinterpret_cast<CountedRows<T>*>(base + counted_at_) : nullptr;
    tables.parts = m.parts;
    tables.blocks = m.blocks;
    tables.batches = m.batches;
    for (Slot& slot : slots_) slot.under_way = false;
    return m;
  }

  // The counter of a pass that is no run: it stands in front of step `steps` + 1.
  void use_counter(std::int64_t steps) {
    chain_.tables.counter =
        static_cast<RunCounter*>(memory_.require(Piece::epoch, sizeof(RunCounter)));
    sent_bytes_ = sizeof(RunCounter);
    *sent<RunCounter>(slots_[0], 0) = {0, 0, steps, 1};
    send(slots_[0], sent_bytes_);
  }

  // The slot that has waited longest; what it measured is in the record.
  Slot& next(RunArgs& run, const Measures& m, Poll& poll) {
    Slot& slot = slots_[turn_ ^= 1];
    if (slot.under_way) collect(slot, run, m, poll);
    return slot;
  }
  // The penalty on the parameters that the last epoch began with.
  double penalty() const { return penalty_; }
  void collect_all(RunArgs& run, const Measures& m, Poll& poll) {
    for (int i = 0; i < 2; ++i) next(run, m, poll);
  }

  // Gives the device what the rest of the epoch needs, or so many epochs from there on; the slot's memory
  // is free.
  void begin(Slot& slot, const RunArgs& run, const Measures& m, index_t epoch, index_t at,
             std::int64_t steps, index_t together = 1) {
    slot.epoch = epoch;
    slot.first_row = at;
    slot.batches = 0;
    *sent<RunCounter>(slot, 0) = {0, at, steps, first_update(steps)};
    if (order_ && !draws_order(run))
      for (index_t e = 0; e < together; ++e) write_order(slot, run, epoch, e);
    const index_t left = together * run.samples.n - at;
    if (closes(run.samples)) count(slot, run, m, at);
    const index_t rates = run.update ? write_hyper(slot, parts_of(left, m.rows), steps) : 0;
    send(slot, hyper_at_ + array_bytes<StepHyper<T>>(rates));
    if (draws_order(run))
      check(permutation(order_, run.samples.n, run.seed, std::uint32_t(run.first_epoch + epoch),
                        std::uint32_t(Purpose::shuffle), choices_, chain_.stream),
            "the order of the rows");
  }

  // Of each part of batch `number` of those that were begun, the outputs that count; null where all do.
  const CountedRows<T>* counted(Slot& slot, const Measures& m, index_t number) {
    return chain_.tables.counted ? sent<CountedRows<T>>(slot, counted_at_) + number * m.parts
                                 : nullptr;
  }
  // Whether sequences end at different steps of outputs at every step.
  bool closes(const fbp_samples& samples) const {
    return samples.lengths && layout_.stages.back().sequence;
  }

  void end(Slot& slot, const Measures& m) {
    auto* sums = slot.sums.template require<double>(std::size_t(m.sums() + m.batches));
    if (chain_.scaling)
      copy(slot.scale.template require<LossScale>(1), chain_.scaling, sizeof(LossScale),
           cudaMemcpyDeviceToHost);
    copy(sums, chain_.tables.sums, array_bytes<double>(m.sums()), cudaMemcpyDeviceToHost);
    if (chain_.rules->penalize())
      copy(sums + m.sums(), chain_.tables.penalties, array_bytes<double>(m.batches),
           cudaMemcpyDeviceToHost);
    if (!slot.done.get()) slot.done = make_event();
    check(cudaEventRecord(slot.done.get(), chain_.stream), "ending an epoch");
    slot.under_way = true;
  }

 private:
  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, chain_.stream), "a copy");
  }
  // The device draws the orders of large sets (the same ones): 2^20 rows take a processor some 6 ms.
  // Where the host must know them to count, it draws them.
  static constexpr index_t kTooMany = index_t(1) << 31;
  bool draws_order(const RunArgs& run) const {
    const index_t n = run.samples.n;
    return run.shuffle && n >= kManyRows && n < kTooMany && !closes(run.samples);
  }
  // What a slot sends, from so many bytes on; the first of them.
  template <class V> V* sent(Slot& slot, std::size_t at) {
    return reinterpret_cast<V*>(slot.sent.template require<unsigned char>(sent_bytes_) + at);
  }
  void send(Slot& slot, std::size_t bytes) {
    copy(chain_.tables.counter, sent<void>(slot, 0), bytes, cudaMemcpyHostToDevice);
  }

  // The outputs that count of the batches from row `at` of the epoch on.
  void count(Slot& slot, const RunArgs& run, const Measures& m, index_t at) {
    const auto* const order = sent<std::int64_t>(slot, order_at_);
    const std::int64_t* const lengths = run.samples.host_lengths;
    auto* part = sent<CountedRows<T>>(slot, counted_at_);
    for (; at < run.samples.n; at += m.rows, part += m.parts) {
      const index_t rows = std::min(m.rows, run.samples.n - at), chunk = chunk_of(rows);
      const index_t parts = parts_of(rows, chunk);
      std::fill(part, part + parts, CountedRows<T>{});
      for (index_t i = 0; i < rows; ++i)
        part[i / chunk].rows += lengths[run.shuffle ? index_t(order[at + i]) : at + i];
      const CountedRows<T> all = chain_.scales_of(all_rows(part, parts));
      for (index_t p = 0; p < parts; ++p) part[p] = {part[p].rows, all.dy_scale, all.error_scale};
    }
  }
  // Of the epoch that is `place` behind the slot's first.
  void write_order(Slot& slot, const RunArgs& run, index_t epoch, index_t place) {
    const index_t n = run.samples.n;
    auto* const order = sent<std::int64_t>(slot, order_at_) + place * n;
    if (run.shuffle)
      random_permutation(order, n, run.seed, std::uint32_t(run.first_epoch + epoch + place));
    else
      std::iota(order, order + n, std::int64_t(0));
  }

  // Of the batch behind step `steps` the least number that its update may have: that of the last update
  // known, and all under way are left out.
  std::int64_t first_update(std::int64_t steps) const {
    const Slot& other = slots_[turn_ ^ 1];
    const index_t under_way = other.under_way ? other.batches : 0;
    const std::int64_t known = chain_.rules->of().update_of(steps + 1) - skipped;
    return std::max(std::int64_t(1), known - under_way);
  }

  // Of the batches behind step `steps`, or of the updates that they may be: for each rate that a range
  // of parameters has. How many sets that are.
  index_t write_hyper(Slot& slot, index_t batches, std::int64_t steps) {
    const UpdateRules& rules = chain_.rules->of();
    const index_t variants = chain_.rules->variant_count();
    const std::int64_t first = first_update(steps);
    const index_t count =
        chain_.scaling ? index_t(rules.update_of(steps + batches) - skipped - first + 1) : batches;
    auto* const hyper = sent<StepHyper<T>>(slot, hyper_at_);
    for (index_t b = 0; b < count; ++b) {
      const std::int64_t t = chain_.scaling ? first + b : rules.update_of(steps + b + 1);
      powers_.advance(optimizer.hyper, t);
      const double rate = rules.rate(t, optimizer.hyper.learning_rate);
      for (index_t v = 0; v < variants; ++v) {
        OptimizerSpec now = optimizer;
        now.hyper.learning_rate = rate * chain_.rules->variant(v);
        hyper[b * variants + v] = step_hyper<T>(now, powers_);
      }
    }
    return count * variants;
  }

  index_t chunk_of(index_t rows) const {
    return layout_.sequences ? layout_.row_chunk(rows) : rows;
  }
  // The sum over the blocks of a batch, in order: of sequences, those of each part, whose outputs
  // `counts` has where it is not null.
  double total(const double* blocks, index_t rows, index_t outputs,
               const CountedRows<T>* counts) const {
    const index_t chunk = chunk_of(rows);
    double sum = 0;
    for (index_t first = 0; first < rows; first += chunk) {
      const index_t here =
          counts ? index_t((counts++)->rows) : std::min(chunk, rows - first) * outputs;
      for (index_t i = 0; i < loss_blocks(here); ++i) sum += blocks[i];
      blocks += loss_blocks(chunk * outputs);
    }
    return sum;
  }

  // Waits for the slot's batches and adds up what they measured: blocks in order, then batches in
  // order, onto what the record has.
  void collect(Slot& slot, RunArgs& run, const Measures& m, Poll& poll) {
    wait_for(slot.done.get(), poll);
    slot.under_way = false;
    if (chain_.scaling) skipped = std::int64_t(slot.scale.template require<LossScale>(1)->skipped);
    const double* const sums =
        slot.sums.template require<double>(std::size_t(m.sums() + m.batches));
    const bool penalized = chain_.rules->penalize();
    penalty_ = penalized ? sums[m.sums()] : 0;
    const bool weighs = loss_is_mean(chain_.loss);
    const index_t n = run.samples.n;
    index_t at = slot.first_row, all_counted = 0;
    run.epoch = slot.epoch;
    for (index_t b = 0; b < slot.batches; ++b) {
      double* const record = run.record + run.epoch * m.places;
      const index_t rows = std::min(m.rows, n - at), parts = parts_of(rows, chunk_of(rows));
      const CountedRows<T>* const counts = counted(slot, m, b);
      const index_t outputs = counts ? all_rows(counts, parts) : rows * m.outputs;
      for (index_t place = 0; place < m.places; ++place) {
        const double* const blocks = sums + (place * m.batches + b) * m.blocks;
        double sum = total(blocks, rows, m.outputs, counts);
        if (place == 0) {
          sum = sum / loss_divisor(chain_.loss, outputs, layout_.outputs);
          if (penalized && run.training) sum += sums[m.sums() + b];
          sum *= weighs ? double(run.training ? rows : outputs) : 1;
        } else if (run.training && outputs != rows) {
          sum *= double(rows) / double(outputs);  // a row of several outputs counts with their mean
        }
        record[place] += sum;
      }
      at += rows;
      all_counted += outputs;
      if (at < n) continue;
      const double all = double(run.training ? n : all_counted);  // what is evaluated is one epoch
      if (run.means)
        for (index_t place = weighs ? 0 : 1; place < m.places; ++place) record[place] /= all;
      ++run.epoch;
      at = 0;
    }
    run.at = at;
  }

  const NetworkLayout& layout_;
  Chain<T>& chain_;
  DeviceMemory& memory_;
  BetaPowers powers_;
  // Of what a slot sends: where the rows' order, what counts and the hyper-parameters begin, and the end.
  std::size_t order_at_ = 0, counted_at_ = 0, hyper_at_ = 0, sent_bytes_ = 0;
  std::int64_t* order_ = nullptr;  // on the device, and what it needs to draw it
  std::int32_t* choices_ = nullptr;
  Slot slots_[2];
  int turn_ = 0;
  double penalty_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
