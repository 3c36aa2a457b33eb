#include "engine/cuda/blas_calls.h"

#include <cstdint>
#include <utility>

namespace fastbp {
namespace cuda {
namespace {

// Predictions of ever new numbers of rows would fill the memory.
constexpr std::size_t kMostPrepared = 256;

// What the library may assume of an address: a power of two, at most 256.
std::uint32_t alignment(const void* at) {
  const auto address = reinterpret_cast<std::uintptr_t>(at) | 256;
  return std::uint32_t(address & (~address + 1));
}

bool add(const lt::Functions& f, lt::Description to, lt::DescriptionAttribute what,
         const void* value, std::size_t bytes) {
  return f.MatmulDescSetAttribute(to, what, value, bytes) == lt::kSuccess;
}

}  // namespace

void BlasCalls::use(const BlasService& service, int device, void* workspace, std::size_t bytes) {
  if (service.number == service_.number && workspace == workspace_) return;
  forget();
  service_ = service;
  handle_ = service.functions ? blas_handle(service, device) : nullptr;
  workspace_ = workspace;
  workspace_bytes_ = bytes;
}

cudaError_t BlasCalls::run(const BlasProduct& product, int algorithm, cudaStream_t stream) {
  if (!handle_) return cudaErrorNotSupported;
  const Prepared& p = prepared(product);
  if (std::size_t(algorithm) >= p.algorithms.size() || !set_pointers(product, p))
    return cudaErrorNotSupported;
  const float one = 1, zero = 0;
  const lt::Status status = service_.functions->Matmul(
      handle_, p.description, &one, product.in.b, p.a, product.in.a, p.b, &zero, product.c, p.c,
      product.c, p.c, &p.algorithms[std::size_t(algorithm)].algorithm, workspace_, workspace_bytes_,
      stream);
  return status == lt::kSuccess ? cudaSuccess : cudaErrorLaunchFailure;
}

BlasCalls::Prepared& BlasCalls::prepared(const BlasProduct& p) {
  const Key key{std::uint64_t(p.form),
                std::uint64_t(p.m),
                std::uint64_t(p.n),
                std::uint64_t(p.k),
                std::uint64_t(p.in.type),
                std::uint64_t(p.in.a_row),
                std::uint64_t(p.in.b_row),
                std::uint64_t(p.c_row),
                std::uint64_t(p.c_type),
                alignment(p.in.a),
                alignment(p.in.b),
                alignment(p.c),
                std::uint64_t(p.epilogue.kind),
                alignment(p.epilogue.vector),
                alignment(p.epilogue.aux),
                std::uint64_t(p.epilogue.aux_row)};
  const auto known = prepared_.find(key);
  if (known != prepared_.end()) return known->second;
  if (prepared_.size() >= kMostPrepared) forget();
  Prepared& fresh = prepared_[key];
  if (!prepare(p, fresh) || !ask(p, fresh)) fresh.algorithms.clear();
  return fresh;
}

// Of the transposed product: its A is our B (n along the columns), its B our A.
bool BlasCalls::prepare(const BlasProduct& p, Prepared& to) const {
  const lt::Functions& f = *service_.functions;
  const bool across_b = p.form == BlasForm::delta, across_a = p.form == BlasForm::gradient;
  const lt::Operation of_a = across_b ? lt::kTransposed : lt::kPlain;
  const lt::Operation of_b = across_a ? lt::kTransposed : lt::kPlain;
  const auto size = [](index_t count) { return std::uint64_t(count); };
  return f.MatmulDescCreate(&to.description,
                            p.in.type == lt::kFloat32 ? lt::kComputeTf32 : lt::kComputeFloat32,
                            lt::kFloat32) == lt::kSuccess &&
         f.MatrixLayoutCreate(&to.a, p.in.type, size(across_b ? p.k : p.n),
                              size(across_b ? p.n : p.k), p.in.b_row) == lt::kSuccess &&
         f.MatrixLayoutCreate(&to.b, p.in.type, size(across_a ? p.m : p.k),
                              size(across_a ? p.k : p.m), p.in.a_row) == lt::kSuccess &&
         f.MatrixLayoutCreate(&to.c, p.c_type, size(p.n), size(p.m), p.c_row) == lt::kSuccess &&
         add(f, to.description, lt::kOperationOfA, &of_a, sizeof of_a) &&
         add(f, to.description, lt::kOperationOfB, &of_b, sizeof of_b) &&
         add(f, to.description, lt::kEpilogue, &p.epilogue.kind, sizeof p.epilogue.kind);
}

bool BlasCalls::set_pointers(const BlasProduct& p, const Prepared& to) const {
  const lt::Functions& f = *service_.functions;
  const BlasEpilogue& e = p.epilogue;
  if (e.vector && !add(f, to.description, lt::kBiasPointer, &e.vector, sizeof e.vector))
    return false;
  const std::int64_t row = e.aux_row;
  return !e.aux || (add(f, to.description, lt::kAuxPointer, &e.aux, sizeof e.aux) &&
                    add(f, to.description, lt::kAuxLeadingDimension, &row, sizeof row));
}

// The library's proposals, which depend on sizes and alignments, and on the pointers of the epilogue
// for theirs.
bool BlasCalls::ask(const BlasProduct& p, Prepared& to) const {
  const lt::Functions& f = *service_.functions;
  lt::Preference preference = nullptr;
  if (!set_pointers(p, to) || f.MatmulPreferenceCreate(&preference) != lt::kSuccess) return false;
  const auto want = [&](lt::PreferenceAttribute what, const auto& value) {
    return f.MatmulPreferenceSetAttribute(preference, what, &value, sizeof value) == lt::kSuccess;
  };
  const std::uint64_t workspace = workspace_bytes_;
  to.algorithms.resize(kAlgorithms);
  int found = 0;
  const bool asked =
      want(lt::kMostWorkspace, workspace) &&
      want(lt::kReductionSchemes, lt::kReductionInComputeType) &&
      want(lt::kLeastAlignmentOfA, alignment(p.in.b)) &&
      want(lt::kLeastAlignmentOfB, alignment(p.in.a)) &&
      want(lt::kLeastAlignmentOfC, alignment(p.c)) &&
      want(lt::kLeastAlignmentOfD, alignment(p.c)) &&
      f.MatmulAlgoGetHeuristic(handle_, to.description, to.a, to.b, to.c, to.c, preference,
                               kAlgorithms, to.algorithms.data(), &found) == lt::kSuccess;
  f.MatmulPreferenceDestroy(preference);
  to.algorithms.resize(asked ? std::size_t(found) : 0);
  return asked;
}

void BlasCalls::release(const Prepared& what) const {
  const lt::Functions& f = *service_.functions;
  if (what.description) f.MatmulDescDestroy(what.description);
  for (lt::Layout layout : {what.a, what.b, what.c})
    if (layout) f.MatrixLayoutDestroy(layout);
}

void BlasCalls::forget() {
  for (const auto& [key, what] : prepared_) release(what);
  prepared_.clear();
}

}  // namespace cuda
}  // namespace fastbp
