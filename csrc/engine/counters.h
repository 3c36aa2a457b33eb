// What metrics count in integers, each worker apart until it is wanted: such sums have no order, so
// nothing needs to be added up after every batch.
#pragma once

#include <algorithm>
#include <vector>

#include "core/types.h"
#include "engine/network_spec.h"

namespace fastbp {

class Counters {
 public:
  void make(const std::vector<MetricSpec>& metrics, int workers) {
    width_ = 0;
    for (const MetricSpec& metric : metrics) width_ += metric.counts;
    apart_ = (width_ + kApart - 1) / kApart * kApart;
    counts_.assign(std::size_t(apart_ * workers), 0);
  }

  bool any() const { return width_ > 0; }
  // Where this worker counts: the integers of the metrics that have any, one after the other.
  std::int64_t* of(int worker) { return counts_.data() + apart_ * worker; }

  // Adds all to a record of these metrics and begins anew; while nobody counts.
  void move_to(const std::vector<MetricSpec>& metrics, double* record) {
    index_t from = 0;
    ++record;  // the loss
    for (const MetricSpec& metric : metrics) {
      for (index_t i = 0; i < metric.counts; ++i) record[i] += double(take(from + i));
      from += metric.counts;
      record += metric.values();
    }
  }

 private:
  static constexpr index_t kApart = 16;  // 128 bytes: two workers share no pair of cache lines

  std::int64_t take(index_t i) {
    std::int64_t sum = 0;
    for (index_t at = i; at < index_t(counts_.size()); at += apart_) {
      sum += counts_[std::size_t(at)];
      counts_[std::size_t(at)] = 0;
    }
    return sum;
  }

  index_t width_ = 0, apart_ = 0;
  std::vector<std::int64_t> counts_;
};

}  // namespace fastbp
