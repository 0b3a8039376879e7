// draft_output on the CPU: the projection with its residual, then the norm of each finished row.
#include "common/draft_output.h"

#include "common/rms_norm.h"
#include "cpu/residual.h"

namespace eagle::cpu {

void draft_output(const DraftOutputParams& p, ParallelFor parallel_for) {
  project_to_residual(
      {
          .dtype = p.dtype,
          .input = p.attention,
          .weight = p.o_weight,
          .residual = p.residual,
          .output = p.hidden,
          .inner = p.inner,
          .size = p.size,
      },
      parallel_for);
  const int64_t row_bytes = p.size * size_of(p.dtype);
  rms_norm(
      {
          .dtype = p.dtype,
          .input = contiguous_rows(p.hidden, p.attention.count, row_bytes),
          .weight = p.norm_weight,
          .output = contiguous_rows(p.normed, p.attention.count, row_bytes),
          .size = p.size,
          .eps = p.eps,
      },
      parallel_for);
}

}  // namespace eagle::cpu
