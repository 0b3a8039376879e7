// decoder_layers on the CPU: each layer's steps one after the other, each step on all threads.
#include "common/decoder_layers.h"

#include <memory>

namespace eagle::cpu {

void decoder_layers(const DecoderLayersParams& p, ParallelFor parallel_for) {
  const auto memory = std::make_unique_for_overwrite<char[]>(DecoderScratch::bytes(p));
  const DecoderScratch scratch(p, memory.get());
  for (int64_t index = 0; index < p.num_layers; ++index) {
    const DecoderSteps steps = decoder_steps(p, index, scratch);
    rms_norm(steps.norm, parallel_for);
    draft_qkv_rope(steps.qkv_rope, parallel_for);
    tree_attention(steps.attention, parallel_for);
    draft_output(steps.output, parallel_for);
    draft_mlp(steps.mlp, parallel_for);
  }
}

}  // namespace eagle::cpu
