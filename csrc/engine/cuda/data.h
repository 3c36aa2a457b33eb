// The samples of a run in device memory: where they are already, held over many calls, or copied for
// one call.
#pragma once

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "engine/cuda/chain.h"
#include "engine/cuda/memory.h"

namespace fastbp {
namespace cuda {

// Copies to the device by way of pinned memory, in two pieces: the processor fills one while the other
// is on its way. Returns when the last piece has been enqueued; the source is free then.
class Staging {
 public:
  void copy(void* device, const void* host, std::size_t bytes, cudaStream_t stream) {
    for (std::size_t at = 0; at < bytes; at += kPiece) {
      const std::size_t here = std::min(kPiece, bytes - at);
      Piece& piece = pieces_[turn_ ^= 1];
      if (piece.sent.get())
        check(cudaEventSynchronize(piece.sent.get()), "a copy");
      else
        piece.sent = make_event();
      auto* const pinned = piece.memory.require<unsigned char>(std::min(kPiece, bytes));
      std::memcpy(pinned, static_cast<const unsigned char*>(host) + at, here);
      check(cudaMemcpyAsync(static_cast<unsigned char*>(device) + at, pinned, here,
                            cudaMemcpyHostToDevice, stream),
            "a copy");
      check(cudaEventRecord(piece.sent.get(), stream), "a copy");
    }
  }

 private:
  static constexpr std::size_t kPiece = std::size_t(4) << 20;  // 0.2 ms of PCIe 4
  struct Piece {
    PinnedMemory memory;
    Event sent;
  };
  Piece pieces_[2];
  int turn_ = 0;
};

template <class T> class Data {
 public:
  Data(const NetworkLayout& layout, DeviceMemory& memory) : layout_(layout), memory_(memory) {}

  Staging staging;

  // Keeps a copy on the device, which serves all calls with the same pointers until release(): of at
  // most two sets, training and validation.
  void hold(const fbp_samples& samples, cudaStream_t stream) {
    if (samples.on_device || held(samples)) return;
    Held& set = sets_[count_ == 0 ? 0 : 1];
    set = {};
    const Piece piece = count_ == 0 ? Piece::held : Piece::held_validation;
    set.here = copy(samples, piece, stream);
    set.host = samples;
    count_ = std::min(count_ + 1, 2);
  }
  void release() {
    for (Held& set : sets_) set = {};
    count_ = 0;
    memory_.release(Piece::held);
    memory_.release(Piece::held_validation);
  }

  DeviceSamples<T> place(const fbp_samples& samples, cudaStream_t stream) {
    const Held* const set = held(samples);
    return set ? set->here : copied(samples, stream);
  }
  // In memory that the next call uses again; where they are if that is on the device.
  DeviceSamples<T> copied(const fbp_samples& samples, cudaStream_t stream) {
    if (!samples.on_device) return copy(samples, Piece::data, stream);
    return {static_cast<const T*>(samples.x),
            static_cast<const T*>(samples.target),
            samples.labels,
            static_cast<const T*>(samples.weight),
            samples.lengths,
            samples.steps,
            nullptr};
  }

 private:
  struct Held {
    fbp_samples host{};
    DeviceSamples<T> here;
  };

  const Held* held(const fbp_samples& s) const {
    for (const Held& set : sets_)
      if (set.host.x && set.host.x == s.x && set.host.n == s.n && set.host.target == s.target &&
          set.host.labels == s.labels && set.host.weight == s.weight &&
          set.host.lengths == s.lengths && set.host.steps == s.steps)
        return &set;
    return nullptr;
  }

  DeviceSamples<T> copy(const fbp_samples& samples, Piece piece, cudaStream_t stream) {
    const index_t n = samples.n, places = layout_.output_places(samples.steps);
    ArenaLayout arena;
    const std::size_t x_bytes = array_bytes<T>(n, samples.steps * layout_.inputs),
                      target_bytes =
                          array_bytes<T>(samples.target ? n : 0, places * layout_.outputs),
                      label_bytes = array_bytes<std::int64_t>(samples.labels ? n : 0, places),
                      weight_bytes = array_bytes<T>(samples.weight ? n : 0, places),
                      length_bytes = array_bytes<std::int64_t>(samples.lengths ? n : 0);
    const std::size_t x = arena.add(x_bytes), target = arena.add(target_bytes),
                      labels = arena.add(label_bytes), weight = arena.add(weight_bytes),
                      lengths = arena.add(length_bytes);
    auto* const base = static_cast<unsigned char*>(memory_.require(piece, arena.total()));
    const auto send = [&](const void* from, std::size_t to, std::size_t bytes) -> const void* {
      if (!from) return nullptr;
      staging.copy(base + to, from, bytes, stream);
      return base + to;
    };
    DeviceSamples<T> here;
    here.steps = samples.steps;
    here.x = static_cast<const T*>(send(samples.x, x, x_bytes));
    here.target = static_cast<const T*>(send(samples.target, target, target_bytes));
    here.labels = static_cast<const std::int64_t*>(send(samples.labels, labels, label_bytes));
    here.weight = static_cast<const T*>(send(samples.weight, weight, weight_bytes));
    here.lengths = static_cast<const std::int64_t*>(send(samples.lengths, lengths, length_bytes));
    return here;
  }

  const NetworkLayout& layout_;
  DeviceMemory& memory_;
  Held sets_[2];
  int count_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
