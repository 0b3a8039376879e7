"""How Medusa's and Hydra's repositories name the tensors of their heads."""

from __future__ import annotations

import re

from eagle_decoding.checkpoint.depth_heads import DepthHeadsConfig

FILES = {
    "medusa": ("medusa_lm_head.safetensors", "medusa_lm_head.pt"),
    "hydra": ("hydra_lm_head.safetensors", "hydra_lm_head.pt"),
}
MEDUSA_BLOCK = re.compile(r"(\d+)\.(\d+)\.linear\.weight")
HYDRA_BLOCK = re.compile(r"hydra_mlp\.(\d+)\.(\d+)\.linear\.weight")
UNUSED = re.compile(r"^input_embed_fn\.|^prefix_embeding_layer\.embed_tokens\.|rotary_emb")
PREFIX = "prefix_embeding_layer."  # as Hydra's repository spells it


def stored_names(config: DepthHeadsConfig) -> dict[str, str]:
    """From each tensor's name in a file of the published layout to its name here; layers that share a block are stored
    once per layer, so several stored names may lead to one tensor."""
    names = _medusa_names(config) if config.method == "medusa" else _hydra_names(config)
    return names | ({"d2t": "d2t"} if config.has_reduced_vocab else {})


def _medusa_names(config: DepthHeadsConfig) -> dict[str, str]:
    """`{head}.{layer}.linear.{weight,bias}`, then `{head}.{num_layers}.weight` for a projection of the head's own.

    `{head}.map.weight` is this project's."""
    names = {}
    for head in range(config.num_heads):
        for layer, block in enumerate(config.blocks):
            for part in ("weight", "bias"):
                names[f"{head}.{layer}.linear.{part}"] = f"heads.{head}.blocks.{block}.{part}"
        if config.output_map:
            names[f"{head}.map.weight"] = f"heads.{head}.map.weight"
        if config.own_lm_head:
            names[f"{head}.{config.num_layers}.weight"] = f"heads.{head}.lm_head.weight"
    return names


def _hydra_names(config: DepthHeadsConfig) -> dict[str, str]:
    """`hydra_mlp.{head}.{index}.linear.*`, where heads with a prefix layer count a dropout before every block.

    `hydra_tokens.*` and `hydra_mlp.{head}.map.weight` are this project's."""
    names = {}
    for head in range(config.num_heads):
        for layer, block in enumerate(config.blocks):
            index = 2 * layer + 1 if config.prefix else layer
            stored, here = f"hydra_mlp.{head}.{index}.", f"heads.{head}."
            for part in ("weight", "bias"):
                names[f"{stored}linear.{part}"] = f"{here}blocks.{block}.{part}"
                if layer == 0 and config.residual_projection:
                    names[f"{stored}res_connection.{part}"] = f"{here}residual.{part}"
        if config.shared_path:
            names[f"hydra_tokens.{head}.weight"] = f"tokens.{head}.weight"
        if config.output_map:
            names[f"hydra_mlp.{head}.map.weight"] = f"heads.{head}.map.weight"
        projection = f"hydra_lm_head.{head}." + ("1." if config.prefix else "")
        if config.own_lm_head:
            names[projection + "weight"] = f"heads.{head}.lm_head.weight"
        if config.lm_head_bias:
            names[projection + "bias"] = f"heads.{head}.lm_head.bias"
    if config.prefix:
        for name in config.tensor_shapes():
            if name.startswith("prefix."):
                names[PREFIX + name.removeprefix("prefix.").replace("layer.", "layers.0.", 1)] = name
    return names
