// gumbel_noise on the CPU: 64 tokens at a time.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include <algorithm>

#include "common/gumbel_noise.h"
#include "cpu/noise.h"

namespace eagle::cpu {

EAGLE_MULTIVERSION void gumbel_noise_rows(const GumbelNoiseParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const NoiseKey noise{philox_key(p.seed[row / p.rows]), static_cast<uint32_t>(p.position_ids[row]), p.stream};
    float* out = p.noise + row * p.num_tokens;
    for (int64_t first = 0; first < p.num_tokens; first += kGroup) {
      const GroupBits bits = group_bits(noise, first);
      float group[kGroup];
      for (int i = 0; i < kGroupVectors; ++i) store(group + i * kLanes, gumbel<Sixteen>(bits.vector[i]));
      std::memcpy(out + first, group, std::min<int64_t>(kGroup, p.num_tokens - first) * sizeof(float));
    }
  }
}

void gumbel_noise(const GumbelNoiseParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch * p.rows, 1, [&](int64_t begin, int64_t end) { gumbel_noise_rows(p, begin, end); });
}

}  // namespace eagle::cpu
