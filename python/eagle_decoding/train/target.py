"""The frozen target model as the trainer sees it: its configuration, a few weights, and its features."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import default_aux_layer_ids, rope_of
from eagle_decoding.target import load_target
from eagle_decoding.train.config import ConfigError, HeadOptions

SAMPLED = 64  # weights of every parameter that tell one target from another


def frozen_target(path: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The target without gradients, from a model directory, a hub id, or a .gguf file (dequantised)."""
    return load_target(path, dtype=dtype).requires_grad_(False)


def target_fingerprint(target: PreTrainedModel) -> str:
    """A hash of every parameter's name, shape and first weights: another model under the same path is another target,
    the same model under another path, or in bfloat16, is not."""
    digest = hashlib.sha256()
    for name, parameter in target.named_parameters():
        digest.update(f"{name} {list(parameter.shape)}".encode())
        digest.update(parameter.detach().flatten()[:SAMPLED].bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def check_fusable(target: PreTrainedModel, options: HeadOptions) -> None:
    """Raises ConfigError for a head over three layers' inputs where the target is too small to have all three."""
    layers = target.config.get_text_config().num_hidden_layers
    ids = list(default_aux_layer_ids(layers))
    if options.kind == "eagle3" and options.features == "fused" and len(ids) != 3:
        raise ConfigError(
            f"EAGLE-3 fuses the inputs of three layers, 2, n // 2 and n - 3, and of these a target of {layers} layers "
            f"has only {ids}: set head.features=final or another head.kind, or take a larger target."
        )


def layer_shape(target: PreTrainedModel, options: HeadOptions) -> dict[str, Any]:
    """The fields of LayerConfig for a head that fits this target: its own layer's widths, rope and norms."""
    config = target.config.get_text_config()
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_heads": config.num_attention_heads,
        "num_kv_heads": options.num_kv_heads or config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "vocab_size": config.vocab_size,
        "draft_vocab_size": options.draft_vocab_size or config.vocab_size,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": rope_of(config),
        "max_position_embeddings": config.max_position_embeddings,
        "attention_bias": bool(getattr(config, "attention_bias", False)),
    }


@torch.inference_mode()
def target_features(target: PreTrainedModel, input_ids: Tensor, layer_ids: tuple[int, ...]) -> Tensor:
    """[B, T, A + 1, H]: the residual stream entering each of layer_ids, then the state after the final norm.

    input_ids [B, T], int64, right-padded: the causal mask keeps padding out of every real token's features.
    """
    states = target.model(input_ids, output_hidden_states=True, use_cache=False).hidden_states
    return torch.stack([states[i] for i in (*layer_ids, len(states) - 1)], 2)
