"""Runs a stock model's decoder layers on a draft layer's ops, as long as their parts are what transformers made."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

import eagle_kernels
from eagle_decoding.attention import TreeContext
from eagle_decoding.layer import AttentionBlock, GatedMlp
from eagle_decoding.matrix import Matrix, side_by_side

MODELS = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Qwen3Moe", "SmolLM3")
LAYERS, RMS_NORMS, MLPS = ([model + part for model in MODELS] for part in ("DecoderLayer", "RMSNorm", "MLP"))
OF_TRANSFORMERS = "transformers.utils.output_capturing"  # whose hooks do nothing unless a forward asks for its states


def layer_forward(layer: Any) -> Callable[..., Tensor] | None:
    """A forward that runs a tree's rows in one op for each part of the layer, and a prompt's as the stock one does.

    The ops round once where the stock layer rounds after every operation. None where a part of the layer is not what
    transformers made: another module in its place, a hook or a forward of somebody else's, a bias that the ops lack.
    Nor for a layer of SmolLM3 that does not rotate.
    """
    attention = attention_block(layer) if is_stock(layer) else None
    if attention is None:
        return None
    mlp, index, norm = gated_mlp(layer.mlp), layer.self_attn.layer_idx, layer.input_layernorm

    def forward(hidden_states: Tensor, eagle_tree: TreeContext | None = None, **kwargs: Any) -> Tensor:
        if eagle_tree is None:
            return type(layer).forward(layer, hidden_states, **kwargs)
        rotation = eagle_tree.rotation(*kwargs["position_embeddings"])
        cache = kwargs["past_key_values"]
        keys, values = cache.buffer.keys[index], cache.buffer.values[index]
        normed = eagle_kernels.rms_norm(hidden_states, norm.weight, norm.variance_epsilon)
        hidden, normed = attention(normed, hidden_states, rotation, keys, values, cache.rows, eagle_tree)
        return hidden + layer.mlp(normed) if mlp is None else mlp(normed, hidden)

    return forward


def is_stock(layer: nn.Module) -> bool:
    """Whether a layer is one of MODELS', with that model's attention and norms, and every part does what it says."""
    model = type(layer).__name__.removesuffix("DecoderLayer")
    own = {name: type(part).__name__.removeprefix(model) for name, part in layer.named_children() if name != "mlp"}
    expected = {"self_attn": "Attention", "input_layernorm": "RMSNorm", "post_attention_layernorm": "RMSNorm"}
    return model in MODELS and own == expected and all(untouched(part) for part in layer.modules() if part is not layer)


def untouched(module: nn.Module) -> bool:
    """Whether calling the module does what its class says and nothing else."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return "forward" not in vars(module) and all(getattr(h, "__module__", None) == OF_TRANSFORMERS for h in hooks)


def attention_block(layer: Any) -> AttentionBlock | None:
    """The attention of a layer, its projections side by side; None where it has parts that the ops lack."""
    attention, norm = layer.self_attn, layer.post_attention_layernorm
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    if not getattr(attention, "use_rope", True):  # SmolLM3 rotates in some of its layers only
        return None
    if not plain(*projections, attention.o_proj) or attention.o_proj.bias is not None:
        return None
    biases = [projection.bias for projection in projections if projection.bias is not None]
    if len(biases) not in (0, 3):
        return None
    return AttentionBlock(
        qkv=Matrix(side_by_side([projection.weight for projection in projections])),
        qkv_bias=side_by_side(biases) if biases else None,
        output=Matrix(attention.o_proj.weight),
        norm=norm.weight,
        eps=norm.variance_epsilon,
        num_heads=attention.config.num_attention_heads,
        scale=attention.scaling,
        q_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        k_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        window=getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
    )


def gated_mlp(mlp: Any) -> GatedMlp | None:
    """A gated MLP, gate and up side by side; None for experts, other modules, activations and biases."""
    if type(mlp).__name__ not in MLPS or not is_silu(mlp) or not plain(mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        return None
    if any(projection.bias is not None for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)):
        return None
    gate_up = side_by_side([mlp.gate_proj.weight, mlp.up_proj.weight])
    return GatedMlp(Matrix(gate_up), Matrix(mlp.down_proj.weight))


def plain(*projections: nn.Module) -> bool:
    """Whether they are linear layers and nothing more, all of one dtype on one device."""
    kinds = {(p.dtype, p.device) for projection in projections for p in projection.parameters()}
    return all(type(projection) is nn.Linear for projection in projections) and len(kinds) == 1


def is_silu(module: nn.Module) -> bool:
    activation = getattr(module, "act_fn", getattr(module, "activation_fn", None))
    return type(activation).__name__ in ("SiLU", "SiLUActivation")
