"""Between `config.json`, in every producer's spelling, and the configuration of a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eagle_decoding.checkpoint.config import HeadConfig, LayerConfig, default_aux_layer_ids
from eagle_decoding.checkpoint.errors import CheckpointError

REQUIRED = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
ROPE_TYPES = {  # what each needs beside the base
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
AUX_KEY = "eagle_aux_hidden_state_layer_ids"


def config_from_fields(fields: dict[str, Any], tensors: dict[str, Tensor]) -> HeadConfig:
    """The head's configuration from config.json and, where files leave things out, from its normalised tensors."""
    if "transformer_layer_config" in fields:
        fields = _flatten_speculators(fields)
    nested = fields.get("eagle_config") or {}
    shape = layer_from_fields(fields, tensors)
    if nested.get("use_aux_hidden_state") is False:
        raise CheckpointError(
            "The head drafts from the last hidden state alone (use_aux_hidden_state is false); "
            "this reader takes heads over fused features."
        )
    if "fc.weight" not in tensors or "lm_head.weight" not in tensors:
        raise CheckpointError(
            "The head has no fc.weight or no lm_head.weight; this reader takes EAGLE-3 heads, which have both."
        )
    target_hidden = fields.get("target_hidden_size") or shape["hidden_size"]
    return HeadConfig(
        **shape,
        draft_vocab_size=fields.get("draft_vocab_size") or tensors["lm_head.weight"].shape[0],
        target_hidden_size=target_hidden,
        num_aux=fields.get("num_aux_hidden_states") or tensors["fc.weight"].shape[-1] // target_hidden,
        aux_layer_ids=_aux_layer_ids(fields, nested),
        fc_norm=bool(fields.get("fc_norm")) or "fc_norm.0.weight" in tensors,
        norm_before_fc=bool(fields.get("norm_before_fc", nested.get("norm_before_fc")))
        or "input_norm.weight" in tensors,
        norm_output=bool(fields.get("norm_output")),
        norm_before_residual=bool(fields.get("norm_before_residual")),
    )


def layer_from_fields(fields: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The fields of LayerConfig, but for the draft vocabulary, from config.json and the normalised tensors."""
    missing = [key for key in REQUIRED if fields.get(key) is None]
    if missing:
        raise CheckpointError(f"The head's config.json lacks {', '.join(missing)}; it is no configuration of a head.")
    wrong = [f"{key} {fields[key]!r}" for key in REQUIRED if not isinstance(fields[key], int) or fields[key] < 1]
    if wrong:
        raise CheckpointError(f"The head's config.json says {', '.join(wrong)}; these are positive whole numbers.")
    check_supported(fields, tensors)
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    biased = any(fields.get(key) for key in ("attention_bias", "qkv_bias"))
    return {
        "hidden_size": hidden,
        "intermediate_size": fields["intermediate_size"],
        "num_heads": heads,
        "num_kv_heads": fields.get("num_key_value_heads") or heads,
        "head_dim": fields.get("head_dim") or hidden // heads,
        "vocab_size": fields["vocab_size"],
        "num_layers": max(len(layers), 1),
        "rms_norm_eps": fields.get("rms_norm_eps", 1e-6),
        "rope_parameters": _rope(fields),
        "max_position_embeddings": fields.get("max_position_embeddings", 2048),
        "attention_bias": biased or "layers.0.self_attn.q_proj.bias" in tensors,
        "hidden_act": fields.get("hidden_act", "silu"),
    }


def check_supported(fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raises CheckpointError for kinds of layers that exist in heads elsewhere and are known not to run here."""
    for part, kind in (("kv_a_proj", "latent attention"), ("q_norm", "norms of queries and keys")):
        name = next((name for name in tensors if part in name), None)
        if name:
            raise CheckpointError(f"The head has {kind} ({name}); this reader takes Llama-type layers.")
    rotated = fields.get("partial_rotary_factor") or _rope(fields).get("partial_rotary_factor") or 1
    if rotated != 1:
        raise CheckpointError(
            f"The head rotates a part of its queries and keys (partial_rotary_factor {rotated}); this reader takes "
            "heads that rotate them whole."
        )
    if _slides(fields):
        raise CheckpointError(
            f"The head attends a sliding window (sliding_window {fields.get('sliding_window')}); this reader takes "
            "heads that attend the whole text."
        )


def _slides(fields: dict[str, Any]) -> bool:
    """Whether the layer has a window: by layer_types if they are given, else by sliding_window."""
    if fields.get("layer_types"):
        return "sliding_attention" in fields["layer_types"]
    return fields.get("sliding_window") is not None and bool(fields.get("use_sliding_window", True))


def _flatten_speculators(fields: dict[str, Any]) -> dict[str, Any]:
    """A speculators configuration as a flat one: the layer's shape on top, its own default for the residual."""
    kind = fields.get("speculators_model_type")
    if kind != "eagle3":
        raise CheckpointError(f"The head is a speculators model of type {kind!r}; this reader takes 'eagle3'.")
    outer = {key: value for key, value in fields.items() if key != "transformer_layer_config"}
    return {"norm_before_residual": True} | fields["transformer_layer_config"] | outer


def _rope(fields: dict[str, Any]) -> dict[str, Any]:
    """transformers-5 rope parameters from either spelling; a head without any was trained with base 10000.

    Raises CheckpointError for a rope_type that is none, and for one without the numbers it needs.
    """
    rope = dict(fields.get("rope_parameters") or fields.get("rope_scaling") or {})
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.setdefault("rope_theta", fields.get("rope_theta") or 10000.0)
    kind = rope["rope_type"]
    if kind not in ROPE_TYPES:
        raise CheckpointError(f"The head's rope_type is {kind!r}; this reader takes {', '.join(ROPE_TYPES)}.")
    missing = [key for key in ROPE_TYPES[kind] if key not in rope]
    if missing:
        raise CheckpointError(f"The head's rope_type is {kind!r}, and its config.json lacks {', '.join(missing)}.")
    return rope


def _aux_layer_ids(fields: dict[str, Any], nested: dict[str, Any]) -> tuple[int, ...] | None:
    """Boundary indices: the top-level list counts a layer's input, the nested one its output (so one more).

    A nested list that equals the default three as inputs, or a top-level one that equals them as outputs, was copied
    from a producer of the other convention and is read as the default three.
    """
    top, inner = fields.get(AUX_KEY), nested.get(AUX_KEY)
    for given in (top, inner):
        if given and not (isinstance(given, list) and all(isinstance(i, int) for i in given)):
            raise CheckpointError(f"The head's {AUX_KEY} are {given!r}; they are a list of layer numbers.")
    if top:
        ids = tuple(top)
        copied = ids[0] == 1 and tuple(i + 1 for i in ids) == default_aux_layer_ids(ids[-1] + 4)
        return tuple(i + 1 for i in ids) if copied else ids
    if inner:
        ids = tuple(inner)
        copied = ids[0] == 2 and ids == default_aux_layer_ids(ids[-1] + 3)
        return ids if copied else tuple(i + 1 for i in ids)
    return None


def layer_fields(config: LayerConfig) -> dict[str, Any]:
    """The head's own layer as transformers describes a Llama model; rope in all three spellings."""
    rope = dict(config.rope_parameters)
    scaling = (
        None if rope.get("rope_type", "default") == "default" else {k: v for k, v in rope.items() if k != "rope_theta"}
    )
    return {
        "model_type": "llama",
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": config.hidden_act,
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": 0.02,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": False,
        "max_position_embeddings": config.max_position_embeddings,
        "attention_bias": config.attention_bias,
        "rope_theta": rope.get("rope_theta", 10000.0),
        "rope_scaling": scaling,
        "rope_parameters": rope,
    }


def fields_from_config(config: HeadConfig, dtype: str) -> dict[str, Any]:
    """config.json of a flat EAGLE-3 head, but for layer ids: these differ from engine to engine.

    `target_hidden_size` is written only where it differs from the head's: SafeAILab's loader takes its presence to mean
    that the file holds embeddings of its own.
    """
    fields = {"architectures": ["LlamaForCausalLMEagle3"], **layer_fields(config)}
    fields |= {"draft_vocab_size": config.draft_vocab_size, "torch_dtype": dtype}
    for flag in ("fc_norm", "norm_before_fc", "norm_output", "norm_before_residual"):
        if getattr(config, flag):
            fields[flag] = True
    if config.target_hidden_size != config.hidden_size:
        fields["target_hidden_size"] = config.target_hidden_size
    if config.num_aux != 3:
        fields["num_aux_hidden_states"] = config.num_aux
    return fields
