"""EAGLE-3 directories as each engine reads them: what a format can express, its config.json and its tensor names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from eagle_decoding.checkpoint.config import HeadConfig, LayerConfig, default_aux_layer_ids
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fields import AUX_KEY, fields_from_config, layer_fields

SPECULATORS_VERSION = "0.9.0"
SPECULATIVE_TOKENS = 5  # drafted a round where the server is not told otherwise


@dataclass(frozen=True)
class TargetFacts:
    """What some formats say about the target: its name, architectures, layers and embeddings [V, H]."""

    name: str
    architectures: list[str]
    num_layers: int
    embed_tokens: Tensor


@dataclass(frozen=True)
class Format:
    """One way of writing a head.

    fields:   config.json from (configuration, dtype name, target)
    refuse:   sentences about what the format cannot express, from (configuration, target)
    weights:  name of the weight file
    first:    prefix of the first layer's tensors
    embedded: the target's embeddings belong into the file
    """

    fields: Callable[[Any, str, TargetFacts | None], dict[str, Any]]
    refuse: Callable[[Any, TargetFacts | None], list[str]]
    weights: str = "model.safetensors"
    first: str = "midlayer."
    embedded: bool = False

    def tensor_name(self, name: str) -> str:
        return self.first + name.removeprefix("layers.0.") if name.startswith("layers.0.") else name


def check_expressible(formats: dict[str, Format], name: str, config: LayerConfig, target: TargetFacts | None) -> Format:
    """The format of this name. Raises CheckpointError, in one sentence, if it is unknown or cannot hold the head."""
    if name not in formats:
        raise CheckpointError(f"The export format is {name!r}; known: {', '.join(formats)}.")
    reasons = formats[name].refuse(config, target)
    ids = config.aux_layer_ids if isinstance(config, HeadConfig) else None
    if name != "portable" and target and ids and ids[-1] > target.num_layers:
        reasons.append(f"layer id {ids[-1]} is the state after the final norm, which this project alone fuses")
    if reasons:
        raise CheckpointError(f"The format {name!r} cannot hold this head: {'; '.join(reasons)}.")
    return formats[name]


def _portable(config: HeadConfig, dtype: str, target: TargetFacts | None) -> dict[str, Any]:
    """Layer ids in both conventions: vLLM prefers the top-level list, SGLang reads the nested one only."""
    fields = fields_from_config(config, dtype)
    if config.aux_layer_ids is not None:
        fields |= _boundary_ids(config) | _output_ids(config)
    return fields


def _vllm(config: HeadConfig, dtype: str, target: TargetFacts | None) -> dict[str, Any]:
    """vLLM, `llama_eagle3.py`, and llama.cpp's converter: a top-level list that counts a layer's input."""
    return fields_from_config(config, dtype) | (_boundary_ids(config) if config.aux_layer_ids else {})


def _sglang(config: HeadConfig, dtype: str, target: TargetFacts | None) -> dict[str, Any]:
    """SGLang 0.5.23, `spec_aux_hidden_state.py`: a nested list that counts a layer's output."""
    return fields_from_config(config, dtype) | (_output_ids(config) if config.aux_layer_ids else {})


def _safeailab(config: HeadConfig, dtype: str, target: TargetFacts | None) -> dict[str, Any]:
    """SafeAILab/EAGLE, `eagle/model/cnets.py`: older spellings of rope; layers {2, n // 2, n - 3} are built in."""
    fields = fields_from_config(config, dtype) | {"architectures": ["LlamaForCausalLM"]}
    rope = fields.pop("rope_parameters")
    if fields["rope_scaling"]:
        fields["rope_scaling"] = {"type": rope["rope_type"], "factor": float(rope["factor"])}
    return fields


def _speculators(config: HeadConfig, dtype: str, target: TargetFacts | None) -> dict[str, Any]:
    """speculators 0.9, `Eagle3SpeculatorConfig`; vLLM serves the directory by itself and finds the verifier in it."""
    assert target is not None
    proposal = {
        "proposal_type": "greedy",
        "speculative_tokens": SPECULATIVE_TOKENS,
        "verifier_accept_k": 1,
        "accept_tolerance": 0.0,
    }
    fields: dict[str, Any] = {
        "architectures": ["Eagle3DraftModel"],
        "speculators_model_type": "eagle3",
        "speculators_version": SPECULATORS_VERSION,
        "transformer_layer_config": layer_fields(config),
        "draft_vocab_size": config.draft_vocab_size,
        "target_hidden_size": None,
        "norm_before_residual": config.norm_before_residual,
        "norm_before_fc": config.norm_before_fc,
        "fc_norm": config.fc_norm,
        "norm_output": config.norm_output,
        "embed_requires_grad": False,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [proposal],
            "verifier": {"name_or_path": target.name, "architectures": target.architectures},
        },
    }
    if config.aux_layer_ids is not None:
        fields[AUX_KEY] = list(config.aux_layer_ids)
    return fields


def _boundary_ids(config: HeadConfig) -> dict[str, Any]:
    return {AUX_KEY: list(config.aux_layer_ids or ()), "num_aux_hidden_states": config.num_aux}


def _output_ids(config: HeadConfig) -> dict[str, Any]:
    nested = {AUX_KEY: [i - 1 for i in config.aux_layer_ids or ()], "use_aux_hidden_state": True}
    return {"eagle_config": nested, "num_aux_hidden_states": config.num_aux}


def _anything(config: HeadConfig, target: TargetFacts | None) -> list[str]:
    return []


def _not_in_vllm(config: HeadConfig, target: TargetFacts | None) -> list[str]:
    return (
        ["with attention_bias vLLM expects a bias of o_proj, which the head has not"] if config.attention_bias else []
    )


def _not_in_llama_cpp(config: HeadConfig, target: TargetFacts | None) -> list[str]:
    """llama.cpp b11434, `conversion/llama.py` and `src/models/eagle3.cpp`."""
    reasons = _unsupported(config, "llama.cpp", ("fc_norm", "norm_output", "attention_bias"))
    if config.num_layers > 1 or config.num_aux != 3:
        reasons.append(
            f"llama.cpp has one layer over three features, this head {config.num_layers} over {config.num_aux}"
        )
    if config.hidden_act != "silu":
        reasons.append(f"llama.cpp has silu, not {config.hidden_act}")
    kind = config.rope_parameters.get("rope_type", "default")
    if kind not in ("default", "linear", "yarn", "llama3"):
        reasons.append(f"llama.cpp has no {kind!r} rope for heads")
    return reasons


def _not_in_sglang(config: HeadConfig, target: TargetFacts | None) -> list[str]:
    reasons = _unsupported(config, "SGLang", ("norm_before_residual", "attention_bias"))
    if config.num_layers > 1:
        reasons.append(f"SGLang names the layers after the first differently, and this head has {config.num_layers}")
    if config.aux_layer_ids and config.aux_layer_ids[0] == 0:
        reasons.append("SGLang counts layer outputs, and layer id 0 stands for the embeddings")
    return reasons


def _not_in_safeailab(config: HeadConfig, target: TargetFacts | None) -> list[str]:
    flags = ("fc_norm", "norm_before_fc", "norm_output", "norm_before_residual", "attention_bias")
    reasons = _unsupported(config, "SafeAILab/EAGLE", flags)
    if config.num_layers > 1 or config.num_aux != 3:
        reasons.append(
            f"SafeAILab/EAGLE has one layer over three features, this head {config.num_layers} over {config.num_aux}"
        )
    default = default_aux_layer_ids(target.num_layers) if target else None
    if config.aux_layer_ids is not None and config.aux_layer_ids != default:
        reasons.append(f"SafeAILab/EAGLE takes layers 2, n // 2, n - 3, not {list(config.aux_layer_ids)}")
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "dynamic"):
        reasons.append(f"SafeAILab/EAGLE has no {kind!r} rope")
    elif kind != "default" and rope.get("rope_theta", 10000.0) != 10000.0:
        reasons.append(f"SafeAILab/EAGLE scales rope with base 10000 only, not {rope['rope_theta']:g}")
    return reasons


def _not_in_speculators(config: HeadConfig, target: TargetFacts | None) -> list[str]:
    reasons = [] if target else ["it names the verifier and holds its embeddings, so give --target"]
    if config.attention_bias:
        reasons.append("with attention_bias speculators expects a bias of o_proj, which the head has not")
    if config.num_aux != 3 or config.target_hidden_size != config.hidden_size:
        reasons.append("speculators fuses three features of the head's own width")
    return reasons


def _unsupported(config: HeadConfig, engine: str, flags: tuple[str, ...]) -> list[str]:
    return [f"{engine} has no {flag}" for flag in flags if getattr(config, flag)]


FORMATS = {
    "portable": Format(_portable, _anything),
    "vllm": Format(_vllm, _not_in_vllm),
    "llama.cpp": Format(_vllm, _not_in_llama_cpp),
    "sglang": Format(_sglang, _not_in_sglang),
    "speculators": Format(_speculators, _not_in_speculators, first="layers.0.", embedded=True),
    "safeailab": Format(_safeailab, _not_in_safeailab, weights="pytorch_model.bin"),
}
