// rope for torch tensors: checks and device dispatch.
#include "common/rope.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor> rope(const Tensor& query, const Tensor& key, const Tensor& cos, const Tensor& sin) {
  Match m("rope");
  m.tensor("query", query, "B Hq Q d", Kind::kFloating, /*strided=*/true);
  m.tensor("key", key, "B Hkv Q d", Kind::kFloating, /*strided=*/true);
  m.tensor("cos", cos, "B Q d", Kind::kFloating, /*strided=*/true);
  m.tensor("sin", sin, "B Q d", Kind::kFloating, /*strided=*/true);
  m.same_dtype("key", key, "query", query);
  m.same_dtype("cos", cos, "query", query);
  m.same_dtype("sin", sin, "query", query);
  EAGLE_CHECK(m["d"] % 2 == 0, "rope: head_dim is ", m["d"], " but must be even");
  Tensor query_output = empty_with_last(query, m["d"]), key_output = empty_with_last(key, m["d"]);
  const RopeParams p{
      .dtype = float_dtype(query),
      .query = rows_of("rope", "query", query),
      .key = rows_of("rope", "key", key),
      .query_output = query_output.mutable_data_ptr(),
      .key_output = key_output.mutable_data_ptr(),
      .cos = rows_of("rope", "cos", cos),
      .sin = rows_of("rope", "sin", sin),
      .batch = m["B"],
      .query_heads = m["Hq"],
      .key_heads = m["Hkv"],
      .rows = m["Q"],
      .head_dim = m["d"],
  };
#ifdef EAGLE_WITH_CUDA
  if (query.is_cuda()) {
    const DeviceGuard guard(query.get_device_index());
    cuda::rope(p, current_stream(query));
    return {query_output, key_output};
  }
#endif
  cpu::rope(p, torch_parallel_for());
  return {query_output, key_output};
}

}  // namespace eagle::ops
