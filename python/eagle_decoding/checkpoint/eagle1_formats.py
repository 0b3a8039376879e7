"""EAGLE-1 directories as each engine reads them: no directory serves all of them, because they differ in fc's bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eagle_decoding.checkpoint.eagle1 import Eagle1Config
from eagle_decoding.checkpoint.fields import layer_fields
from eagle_decoding.checkpoint.formats import Format, TargetFacts


def eagle1_layout(
    config: Eagle1Config, tensors: dict[str, Tensor], format: str
) -> tuple[Eagle1Config, dict[str, Tensor]]:
    """A head that drafts the same as far as the engine of a format can: with fc's bias or without, never with `d2t`.

    vLLM's fc has no bias, so a zero one goes. SGLang's has one and leaves a missing one at random, so a zero one comes.
    The portable format holds everything as it is.
    """
    if format not in EAGLE1_FORMATS or format == "portable":
        return config, tensors
    tensors = {name: tensor for name, tensor in tensors.items() if name != "d2t"}
    if format == "vllm" and config.fc_bias and not tensors["fc.bias"].any():
        del tensors["fc.bias"]
    if format == "sglang" and not config.fc_bias:
        tensors["fc.bias"] = torch.zeros_like(tensors["fc.weight"][:, 0])
    return replace(config, draft_vocab_size=config.vocab_size, fc_bias="fc.bias" in tensors), tensors


def _fields(architecture: str, bias: bool) -> Callable[[Eagle1Config, str, TargetFacts | None], dict[str, Any]]:
    """config.json of a format; bias: it says whether fc has one.

    `qkv_bias` is the key of SafeAILab/EAGLE, and vLLM's for biases of these three projections alone (`attention_bias`
    adds one to the output). `bias` is that of fc to SafeAILab, true where it is absent.
    """

    def fields(config: Eagle1Config, dtype: str, target: TargetFacts | None) -> dict[str, Any]:
        result = {"architectures": [architecture], "eagle_version": 1, **layer_fields(config), "torch_dtype": dtype}
        result |= {"attention_bias": False, "qkv_bias": config.attention_bias}
        if bias:
            result["bias"] = config.fc_bias
        if config.has_reduced_vocab:
            result["draft_vocab_size"] = config.draft_vocab_size
        return result

    return fields


def _anything(config: Eagle1Config, target: TargetFacts | None) -> list[str]:
    return []


def _not_without_target(config: Eagle1Config, target: TargetFacts | None) -> list[str]:
    return [] if target else ["it holds the target's embeddings, so give --target"]


def _not_in_vllm(config: Eagle1Config, target: TargetFacts | None) -> list[str]:
    reasons = ["fc.bias is not zero and vLLM's fc has none"] if config.fc_bias else []
    return reasons + _not_without_target(config, target)


def _not_in_sglang(config: Eagle1Config, target: TargetFacts | None) -> list[str]:
    reasons = ["SGLang has no biases of the query, key and value projections alone"] if config.attention_bias else []
    return reasons + _not_without_target(config, target)


def _not_in_safeailab(config: Eagle1Config, target: TargetFacts | None) -> list[str]:
    kind = config.rope_parameters.get("rope_type", "default")
    reasons = [] if kind == "default" else [f"SafeAILab/EAGLE is not known to read {kind!r} rope"]
    return reasons + _not_without_target(config, target)


EAGLE1_FORMATS = {
    "portable": Format(_fields("LlamaForCausalLM", bias=True), _anything, first="layers.0."),
    "vllm": Format(_fields("LlamaForCausalLM", bias=True), _not_in_vllm, first="layers.0.", embedded=True),
    "sglang": Format(_fields("LlamaForCausalLMEagle", bias=False), _not_in_sglang, first="layers.0.", embedded=True),
    "safeailab": Format(
        _fields("LlamaForCausalLM", bias=True), _not_in_safeailab, "pytorch_model.bin", "layers.0.", embedded=True
    ),
}
