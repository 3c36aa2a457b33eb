#include "backend/pool_terms.h"

namespace fastbp {
namespace {

thread_local PoolTerms* the_terms = nullptr;

}  // namespace

PoolTerms* pool_terms() { return the_terms; }
void set_pool_terms(PoolTerms* terms) { the_terms = terms; }

}  // namespace fastbp
