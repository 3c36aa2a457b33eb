#include "engine/cuda/blas_products.h"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <sstream>

#include "core/arena.h"
#include "engine/cuda/blas_trials.h"
#include "kernels/cuda/train/stored.h"
#include "ops/activations.h"

namespace fastbp {
namespace cuda {
namespace {

// Below, products are as short as the launches of two kernels in the place of one: on 132
// multiprocessors of 1024 multiply-adds a clock, 2^20 take 8 clocks.
constexpr double kLeastWork = double(1 << 20);
// As NVIDIA recommends for cublasSetWorkspace: 32 MiB from 9.0 on, 4 MiB before.
constexpr std::size_t kWorkspace = std::size_t(32) << 20, kOlderWorkspace = std::size_t(4) << 20;
constexpr index_t kMaskUnit = 128;  // bits; what rows of masks are multiples of
constexpr index_t kAuxUnit = 8;     // values; and those of the other matrices beside a product
constexpr double kHopeless = 1.5;   // times the best: one round tells enough
// What is saved is more than two measurements of the same kernel differ by.
constexpr double kWorthwhile = 0.95;
constexpr index_t kSampledRows = 8;

struct Choice {
  int way = 0;
  std::string text;
};
std::mutex mutex;
std::map<std::vector<std::uint64_t>, Choice> choices;  // of the process

index_t power_of_two(index_t at_least) {
  index_t power = 1;
  while (power < at_least) power *= 2;
  return power;
}

const char* name_of(lt::DataType type) {
  return type == lt::kFloat16 ? "float16" : type == lt::kBfloat16 ? "bfloat16" : "tf32";
}

std::string title(const char* form, index_t m, index_t n, index_t k, const BlasOperands& in) {
  std::ostringstream text;
  text << form << " " << m << "x" << n << "x" << k << " " << name_of(in.type);
  return text.str();
}

bool is_aligned(const void* at, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(at) % bytes == 0;
}

bool is_recording(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) != cudaSuccess ||
         status != cudaStreamCaptureStatusNone;
}

cudaError_t shadow_of(const float* x, index_t row, index_t rows, index_t cols, Shadow to,
                      cudaStream_t stream) {
  return to.at ? write_shadow(x, row, rows, cols, to, stream) : cudaSuccess;
}

}  // namespace

std::string blas_choices() {
  const std::lock_guard<std::mutex> lock(mutex);
  std::string text;
  for (const auto& [key, choice] : choices) text += choice.text + "\n";
  return text;
}

void BlasProducts::prepare(index_t rows, bool training) {
  service_ = blas_service();
  ready_ = false;
  if (!service_.functions) return;
  const bool wide = std::any_of(layout_.stages.begin(), layout_.stages.end(), [&](const Stage& s) {
    return s.dense() && serves(rows, s.outputs, s.inputs);
  });
  if (!wide) return;
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_), "the device");
  const std::size_t bytes = major >= 9 ? kWorkspace : kOlderWorkspace;
  try {
    calls_.use(service_, device_, memory_.require(Piece::product_workspace, bytes), bytes);
    ready_ = !training || lay_out_masks(rows);
  } catch (const Failure& failure) {
    if (failure.code != FBP_OUT_OF_MEMORY) throw;  // else the own kernels need none
  }
}

bool BlasProducts::lay_out_masks(index_t rows) {
  if (rows <= mask_rows_) return true;
  mask_rows_ = 0;
  masks_.assign(layout_.stages.size(), {});
  ArenaLayout arena;
  for (std::size_t s = 0; s < masks_.size(); ++s) {
    const Stage& stage = layout_.stages[s];
    if (!stage.dense() || stage.activation != activation_number<Relu>()) continue;
    masks_[s].row = ceil_div(stage.outputs, kMaskUnit) * kMaskUnit;
    masks_[s].offset = arena.add(array_bytes<unsigned char>(rows, masks_[s].row / 8));
  }
  if (arena.total() > 0)
    mask_memory_ =
        static_cast<unsigned char*>(memory_.require(Piece::product_masks, arena.total()));
  mask_rows_ = rows;
  return true;
}

std::uint64_t BlasProducts::version() const {
  return ready_ ? std::uint64_t(service_.number) ^ reinterpret_cast<std::uintptr_t>(mask_memory_)
                : 0;
}

bool BlasProducts::serves(index_t m, index_t n, index_t k) const {
  return double(m) * double(n) * double(k) >= kLeastWork;
}

BlasProducts::Key BlasProducts::key_of(BlasForm form, index_t m, index_t n, index_t k,
                                       const BlasOperands& in) const {
  return {std::uint64_t(service_.number),
          std::uint64_t(device_),
          std::uint64_t(form),
          std::uint64_t(m),
          std::uint64_t(n),
          std::uint64_t(k),
          std::uint64_t(in.type),
          std::uint64_t(in.a_row),
          std::uint64_t(in.b_row)};
}

// -1: the product has not been measured.
int BlasProducts::known(const Key& key) const {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = choices.find(key);
  return found == choices.end() ? -1 : found->second.way;
}

// Host copies of the sampled values, row by row.
std::vector<float> BlasProducts::fetched(const Sample& s, cudaStream_t stream) {
  if (!s.shadow.at) return copied_rows(s.at, s.row, s.rows, s.cols, stream);
  std::vector<float> values;
  for (std::uint16_t bits : copied_rows(s.shadow.at, s.shadow.row, s.rows, s.cols, stream))
    values.push_back(widened(bits, s.shadow.kind));
  return values;
}

// Makes NaN of the sampled values, so that what leaves them unwritten is found out.
void BlasProducts::spoil(const Sample& s, cudaStream_t stream) {
  if (s.shadow.at)
    fill_ones(s.shadow.at, s.shadow.row, s.rows, s.cols, stream);
  else
    fill_ones(s.at, s.row, s.rows, s.cols, stream);
}

// `right` leaves in the sample's place what each way should.
int BlasProducts::measure(const Key& key, const std::vector<Way>& ways, const Own& right,
                          const Sample& sample, const std::string& name, cudaStream_t stream) {
  Choice choice;
  std::ostringstream text;
  text.precision(1);
  text << std::fixed << name << ":";
  const auto made = [&] { return fetched(sample, stream); };
  check(right(), "a product");
  const std::vector<float> wanted = made();
  double own = 0, best = std::numeric_limits<double>::infinity();
  for (std::size_t w = 0; w < ways.size(); ++w) {
    spoil(sample, stream);
    double time = timed(ways[w].run, stream);
    const char* problem = std::isfinite(time) ? nullptr : "not offered";
    if (!problem && w > 0 && !agree(made(), wanted)) problem = "another result";
    if (!problem && ways[w].with_bias) {
      const auto bias = broken_bias(sample.cols, stream);
      if (!bias.get() || ways[w].with_bias(static_cast<const float*>(bias.get())) != cudaSuccess)
        problem = "not offered";
      else if (!std::isnan(made()[0]))
        problem = "loses NaN";
    }
    // The first is not counted.
    if (!problem)
      time = timed_together(ways[w].run, time, stream,
                            [&](double least) { return least < kHopeless * best; });
    text << (w ? ", " : " ") << ways[w].name << " ";
    if (problem) {
      text << problem;
      continue;
    }
    text << time << " us";
    if (w == 0) own = time;
    if (time < best && (w == 0 || time <= kWorthwhile * own)) choice.way = int(w), best = time;
  }
  text << "; taken: " << ways[std::size_t(choice.way)].name;
  choice.text = text.str();
  const std::lock_guard<std::mutex> lock(mutex);
  choices[key] = choice;
  return choice.way;
}

// By the way that is known to be the fastest; by the own one, from now on, where that fails.
cudaError_t BlasProducts::take(const Key& key, const std::vector<Way>& ways, const Sample& sample,
                               const std::string& name, cudaStream_t stream, int* taken) {
  int way = known(key);
  if (way < 0)
    way = is_recording(stream) ? 0 : measure(key, ways, ways[0].run, sample, name, stream);
  if (way > 0 && ways[std::size_t(way)].run() != cudaSuccess) {
    give_up(key);
    way = 0;
  }
  if (taken) *taken = way;
  return way > 0 ? cudaSuccess : ways[0].run();
}

void BlasProducts::give_up(const Key& key) {
  const std::lock_guard<std::mutex> lock(mutex);
  choices[key].way = 0;
  choices[key].text += "; own, since it failed";
}

// By each of the library's algorithms, and what `rest` enqueues.
void BlasProducts::add_ways(std::vector<Way>& ways, const BlasProduct& product,
                            const std::string& name, const std::function<cudaError_t()>& rest,
                            bool maps_values, cudaStream_t stream) {
  for (int number = 0; number < BlasCalls::kAlgorithms; ++number) {
    const auto run = [this, product, number, rest, stream](void* bias) {
      BlasProduct p = product;
      if (bias) p.epilogue.vector = bias;
      const cudaError_t error = calls_.run(p, number, stream);
      return error == cudaSuccess ? rest() : error;
    };
    Way way{name + " " + std::to_string(number + 1), [run] { return run(nullptr); }};
    if (maps_values)
      way.with_bias = [run](const float* bias) { return run(const_cast<float*>(bias)); };
    ways.push_back(std::move(way));
  }
}

// The activation's, where the library has it and it gives the backward pass what that reads.
BlasEpilogue BlasProducts::forward_epilogue(const BlasForward& f) const {
  BlasEpilogue e;
  e.vector = const_cast<float*>(f.bias);
  if (f.activation == activation_number<Relu>()) {
    e.kind = lt::kReluBias;
    if (f.training && !f.z) {
      const Mask& mask = masks_[f.stage];
      e = {lt::kReluAuxBias, e.vector, mask_memory_ + mask.offset, mask.row};
    }
  } else if (f.activation == activation_number<GeluTanh>()) {
    e.kind = lt::kGeluBias;
    if (f.z) e = {lt::kGeluAuxBias, e.vector, f.z, f.z_row};
    if (f.z && (f.z_row % kAuxUnit || !is_aligned(f.z, 16))) e.kind = lt::kDefault;
  }
  return e;
}

void BlasProducts::add_forward_ways(std::vector<Way>& ways, const BlasForward& f,
                                    cudaStream_t stream) {
  if (f.bias && !is_aligned(f.bias, 16)) return;
  BlasProduct product{BlasForm::forward, f.m, f.n, f.k, f.in, {}, nullptr, 0};
  product.epilogue.kind = f.bias ? lt::kBias : lt::kDefault;
  product.epilogue.vector = const_cast<float*>(f.bias);
  product.c = f.z ? f.z : f.tile.out;
  product.c_row = f.z ? f.z_row : f.tile.out_row;
  const auto shadow = [f, stream] {
    return shadow_of(f.tile.out, f.tile.out_row, f.m, f.n, f.y, stream);
  };
  const auto rest = [f, at = f.z ? f.z : f.tile.out, row = product.c_row, stream] {
    ActivationTile<float> tile = f.tile;
    tile.out = f.y_left;
    return stored_forward(at, row, f.m, f.n, f.activation, tile, f.y, stream);
  };
  const bool bare = f.activation == activation_number<Identity>() && !f.z;
  add_ways(ways, product, "cuBLASLt", bare ? Own(shadow) : Own(rest), false, stream);
  const BlasEpilogue mapped = forward_epilogue(f);
  if (!f.bias || mapped.kind == lt::kDefault) return;
  product.epilogue = mapped;
  product.c = f.tile.out;
  product.c_row = f.tile.out_row;
  add_ways(ways, product, "cuBLASLt with activation", shadow, true, stream);
}

cudaError_t BlasProducts::forward(const BlasForward& f, const Own& own, cudaStream_t stream) {
  if (!ready_ || !serves(f.m, f.n, f.k)) return own();
  std::vector<Way> ways{{"own", own}};
  add_forward_ways(ways, f, stream);
  // A prediction's number of rows may be another one each time.
  Key key = key_of(BlasForm::forward, f.training ? f.m : power_of_two(f.m), f.n, f.k, f.in);
  key.insert(key.end(), {std::uint64_t(f.training), std::uint64_t(f.activation),
                         std::uint64_t(f.bias != nullptr), std::uint64_t(f.y.at != nullptr),
                         std::uint64_t(f.y_left != nullptr), std::uint64_t(ways.size())});
  const Sample sample{f.tile.out, f.tile.out_row, std::min(f.m, kSampledRows), f.n, f.y};
  int way = 0;
  const cudaError_t error =
      take(key, ways, sample, title("forward", f.m, f.n, f.k, f.in), stream, &way);
  if (f.training && f.stage < masks_.size())
    masks_[f.stage].written =
        way > BlasCalls::kAlgorithms && f.activation == activation_number<Relu>();
  return error;
}

BlasEpilogue BlasProducts::delta_epilogue(const BlasDelta& d) const {
  if (d.activation == activation_number<Relu>() && d.below < masks_.size() &&
      masks_[d.below].written)
    return {lt::kReluBackward, nullptr, mask_memory_ + masks_[d.below].offset, masks_[d.below].row};
  if (d.activation == activation_number<GeluTanh>() && d.tile.saved_row % kAuxUnit == 0 &&
      is_aligned(d.tile.saved, 16))
    return {lt::kGeluBackward, nullptr, const_cast<float*>(d.tile.saved), d.tile.saved_row};
  return {};
}

void BlasProducts::add_delta_ways(std::vector<Way>& ways, const BlasDelta& d, cudaStream_t stream) {
  BlasProduct summed{BlasForm::delta, d.m, d.n, d.k, d.in, {}, d.tile.out, d.tile.out_row};
  BlasProduct whole = summed;  // and nothing follows it
  if (d.dz.at) whole.c = d.dz.at, whole.c_row = d.dz.row, whole.c_type = d.in.type;
  const auto nothing = [] { return cudaSuccess; };
  if (d.activation == activation_number<Identity>())
    return add_ways(ways, whole, "cuBLASLt", nothing, false, stream);
  const auto rest = [d, stream] {
    ActivationTile<float> tile = d.tile;
    if (d.dz.at) tile.out = nullptr;
    return stored_delta(d.tile.out, d.tile.out_row, d.m, d.n, d.activation, tile, d.dz, stream);
  };
  // A derivative of 0 or 1 is the same of what has been rounded.
  if (d.dz.at && d.in.type == lt::kBfloat16 && d.activation == activation_number<Relu>())
    add_ways(
        ways, whole, "cuBLASLt rounding",
        [d, stream] { return stored_relu_delta(d.m, d.n, d.dz, d.y, stream); }, false, stream);
  add_ways(ways, summed, "cuBLASLt", rest, false, stream);
  whole.epilogue = delta_epilogue(d);
  if (whole.epilogue.kind != lt::kDefault)
    add_ways(ways, whole, "cuBLASLt with derivative", nothing, false, stream);
}

cudaError_t BlasProducts::delta(const BlasDelta& d, const Own& own, cudaStream_t stream) {
  if (!ready_ || !serves(d.m, d.n, d.k)) return own();
  std::vector<Way> ways{{"own", own}};
  add_delta_ways(ways, d, stream);
  Key key = key_of(BlasForm::delta, d.m, d.n, d.k, d.in);
  key.insert(key.end(), {std::uint64_t(d.activation), std::uint64_t(d.dz.at != nullptr),
                         std::uint64_t(ways.size())});
  const Sample sample{d.tile.out, d.tile.out_row, std::min(d.m, kSampledRows), d.n, d.dz};
  return take(key, ways, sample, title("delta", d.m, d.n, d.k, d.in), stream);
}

// The bias's row by a row of ones in A, or as the sums of B.
void BlasProducts::add_gradient_ways(std::vector<Way>& ways, const BlasGradient& g,
                                     const std::function<cudaError_t()>& rest,
                                     cudaStream_t stream) {
  BlasProduct product{BlasForm::gradient, g.m, g.n, g.k, g.in, {}, g.c, g.n};
  add_ways(ways, product, "cuBLASLt", rest, false, stream);
  float* const sums = g.c + (g.m - 1) * g.n;
  if (!g.bias || !is_aligned(sums, 16)) return;
  product.m = g.m - 1;
  product.epilogue = {lt::kSumsOfA, sums};
  add_ways(ways, product, "cuBLASLt with bias", rest, false, stream);
}

namespace {

// From the rows in front of the bias's on, that one too.
index_t first_sampled(const BlasGradient& g) { return std::max(index_t(0), g.m - kSampledRows); }

}  // namespace

cudaError_t BlasProducts::store(const BlasGradient& g, const Own& own, cudaStream_t stream) {
  if (!ready_ || !serves(g.m, g.n, g.k)) return own();
  std::vector<Way> ways{{"own", own}};
  add_gradient_ways(ways, g, [] { return cudaSuccess; }, stream);
  Key key = key_of(BlasForm::gradient, g.m, g.n, g.k, g.in);
  key.insert(key.end(), {ways.size(), std::uint64_t(g.parts)});
  const index_t first = first_sampled(g);
  const Sample sample{g.c + first * g.n, g.n, g.m - first, g.n};
  return take(key, ways, sample, title("gradient", g.m, g.n, g.k, g.in), stream);
}

cudaError_t BlasProducts::update(const BlasUpdate& u, const OwnUpdate& own, const Own& own_store,
                                 cudaStream_t stream) {
  const BlasGradient& g = u.gradient;
  if (!ready_ || !serves(g.m, g.n, g.k)) return own(u.to, u.w);
  const auto ways_to = [&](const Parameters<float>& to, Shadow w) {
    std::vector<Way> ways{{"own", [&own, to, w] { return own(to, w); }}};
    add_gradient_ways(
        ways, g,
        [g, u, to, w, stream] {
          return stored_update(g.c, 1, 0, g.m, g.n, u.optimizer, to, u.steps, w, stream);
        },
        stream);
    return ways;
  };
  const std::vector<Way> ways = ways_to(u.to, u.w);
  Key key = key_of(BlasForm::gradient, g.m, g.n, g.k, g.in);
  key.insert(key.end(), {ways.size(), std::uint64_t(g.parts), std::uint64_t(u.optimizer),
                         std::uint64_t(u.w.at != nullptr)});
  if (known(key) < 0 && !is_recording(stream)) {
    const TrialParameters trial(u, stream);
    if (!trial.memory.get()) return own(u.to, u.w);
    const index_t first = first_sampled(g);
    // The own way leaves no gradient to compare with.
    measure(key, ways_to(trial.to, trial.w), own_store, {g.c + first * g.n, g.n, g.m - first, g.n},
            title("update", g.m, g.n, g.k, g.in), stream);
  }
  return take(key, ways, {}, "", stream);
}

}  // namespace cuda
}  // namespace fastbp
