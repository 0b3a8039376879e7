// Checks and views that the sampling ops share.
#pragma once
#include "common/sampling.h"
#include "ops/match.h"

namespace eagle::ops {

// Checks logits against `shape`, last dimension contiguous, and views the last three dimensions.
inline LogitsView match_logits(Match& m, const char* op, const char* name, const Tensor& logits, const char* shape) {
  m.tensor(name, logits, shape, Kind::kFloating, /*strided=*/true);
  EAGLE_CHECK(logits.size(2) > 0 && (logits.size(2) == 1 || logits.stride(2) == 1), op, ": ", name,
              " must have a last dimension that is contiguous and not empty; call .contiguous() on it");
  return {logits.const_data_ptr(), float_dtype(logits), logits.stride(0), logits.stride(1)};
}

inline SamplingParamsView match_requests(Match& m, const Tensor& seed, const Tensor& temperature, const Tensor& top_k,
                                         const Tensor& top_p, const Tensor& min_p) {
  m.tensor("seed", seed, "B", Kind::kInt64);
  m.tensor("temperature", temperature, "B", Kind::kFloat32);
  m.tensor("top_k", top_k, "B", Kind::kInt32);
  m.tensor("top_p", top_p, "B", Kind::kFloat32);
  m.tensor("min_p", min_p, "B", Kind::kFloat32);
  return {seed.const_data_ptr<int64_t>(), temperature.const_data_ptr<float>(), top_k.const_data_ptr<int32_t>(),
          top_p.const_data_ptr<float>(), min_p.const_data_ptr<float>()};
}

}  // namespace eagle::ops
