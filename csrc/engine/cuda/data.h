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

// Arrays of the host, and where they go in one piece of device memory; in order.
struct Parcel {
  const void* from;
  std::size_t to, bytes;
};

// Copies to the device by way of pinned memory, in two pieces: the processor fills one while the other
// is on its way. Returns when the last piece has been enqueued; the sources are free then.
class Staging {
 public:
  // Of so many bytes in all. What fits a piece is one copy, as a copy's own cost is that of 50 KB.
  template <std::size_t n>
  void copy(unsigned char* device, const Parcel (&parcels)[n], std::size_t all,
            cudaStream_t stream) {
    if (all <= kSmall) {
      send(device, all, stream, [&](unsigned char* pinned) {
        for (const Parcel& p : parcels)
          if (p.from) std::memcpy(pinned + p.to, p.from, p.bytes);
      });
      return;
    }
    for (const Parcel& p : parcels) {
      if (!p.from) continue;
      for (std::size_t at = 0; at < p.bytes; at += kPiece) {
        const std::size_t here = std::min(kPiece, p.bytes - at);
        send(device + p.to + at, here, stream, [&](unsigned char* pinned) {
          std::memcpy(pinned, static_cast<const unsigned char*>(p.from) + at, here);
        });
      }
    }
  }

 private:
  static constexpr std::size_t kPiece = std::size_t(4) << 20;  // 0.2 ms of PCIe 4
  static constexpr std::size_t kSmall = std::size_t(256) << 10;

  template <class Fill>
  void send(unsigned char* device, std::size_t bytes, cudaStream_t stream, Fill fill) {
    Piece& piece = pieces_[turn_ ^= 1];
    if (piece.sent.get())
      check(cudaEventSynchronize(piece.sent.get()), "a copy");
    else
      piece.sent = make_event();
    auto* const pinned = piece.memory.require<unsigned char>(bytes);
    fill(pinned);
    check(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream), "a copy");
    check(cudaEventRecord(piece.sent.get(), stream), "a copy");
  }

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
    staging.copy(base,
                 {{samples.x, x, x_bytes},
                  {samples.target, target, target_bytes},
                  {samples.labels, labels, label_bytes},
                  {samples.weight, weight, weight_bytes},
                  {samples.lengths, lengths, length_bytes}},
                 arena.total(), stream);
    const auto there = [&](const void* from, std::size_t to) -> const void* {
      return from ? base + to : nullptr;
    };
    DeviceSamples<T> here;
    here.steps = samples.steps;
    here.x = static_cast<const T*>(there(samples.x, x));
    here.target = static_cast<const T*>(there(samples.target, target));
    here.labels = static_cast<const std::int64_t*>(there(samples.labels, labels));
    here.weight = static_cast<const T*>(there(samples.weight, weight));
    here.lengths = static_cast<const std::int64_t*>(there(samples.lengths, lengths));
    return here;
  }

  const NetworkLayout& layout_;
  DeviceMemory& memory_;
  Held sets_[2];
  int count_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
