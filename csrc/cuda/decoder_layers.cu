// decoder_layers on the GPU: the launches of each layer's steps, one after the other; no kernel of its own.
#include <algorithm>

#include "common/decoder_layers.h"

namespace eagle::cuda {
namespace {

// Of the steps, which use the same memory in turn; layers are alike, so one speaks for all.
int64_t steps_workspace(const DecoderLayersParams& p, const DecoderScratch& scratch) {
  const DecoderSteps steps = decoder_steps(p, 0, scratch);
  return std::max({draft_qkv_rope_workspace(steps.qkv_rope), tree_attention_workspace(steps.attention),
                   draft_output_workspace(steps.output), draft_mlp_workspace(steps.mlp)});
}

}  // namespace

int64_t decoder_layers_workspace(const DecoderLayersParams& p) {
  return p.num_layers == 0 ? 0 : DecoderScratch::bytes(p) + steps_workspace(p, DecoderScratch(p, nullptr));
}

void decoder_layers(const DecoderLayersParams& p, void* workspace, void* stream) {
  const DecoderScratch scratch(p, workspace);
  void* behind = static_cast<char*>(workspace) + DecoderScratch::bytes(p);
  for (int64_t index = 0; index < p.num_layers; ++index) {
    const DecoderSteps steps = decoder_steps(p, index, scratch);
    rms_norm(steps.norm, stream);
    draft_qkv_rope(steps.qkv_rope, behind, stream);
    tree_attention(steps.attention, behind, stream);
    draft_output(steps.output, behind, stream);
    draft_mlp(steps.mlp, behind, stream);
  }
}

}  // namespace eagle::cuda
