"""decoder_layers in Triton: the kernels of five ops a layer, one layer after the other."""

from typing import Any

from torch import Tensor

from eagle_kernels.reference.decoder_layers import LayerOps, layer_by_layer
from eagle_kernels.triton.draft_mlp import draft_mlp
from eagle_kernels.triton.draft_output import draft_output
from eagle_kernels.triton.draft_qkv_rope import draft_qkv_rope
from eagle_kernels.triton.rms_norm import rms_norm
from eagle_kernels.triton.tree_attention import tree_attention


def decoder_layers(*arguments: Any) -> tuple[Tensor, Tensor]:
    ops = LayerOps(rms_norm, draft_qkv_rope, tree_attention, draft_output, draft_mlp)
    return layer_by_layer(ops, *arguments)
