// Gumbel noise of four consecutive tokens at a time.
#pragma once
#include <cuda_runtime.h>

#include "common/elementary.h"
#include "common/philox.h"

namespace eagle::cuda {

constexpr int kNoiseTokens = 4;  // of one Philox block

struct NoiseKey {
  PhiloxKey key;
  uint32_t position;
  Stream stream;
  uint32_t node;

  __device__ NoiseKey(int64_t seed, int32_t position_id, Stream stream, int32_t node = 0)
      : key(philox_key(seed)),
        position(static_cast<uint32_t>(position_id)),
        stream(stream),
        node(static_cast<uint32_t>(node)) {}

  // Bits of tokens first..first + 3; first is a multiple of 4.
  __device__ PhiloxBlock<OneLane> bits(int64_t first) const {
    return philox<OneLane>(key, static_cast<uint32_t>(first / kNoiseTokens), position, stream, node);
  }
};

}  // namespace eagle::cuda
