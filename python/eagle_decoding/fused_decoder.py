"""Runs all decoder layers of a stock model in one op, as long as every part of them is what transformers made."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers.modeling_outputs import BaseModelOutputWithPast

from eagle_decoding.attention import TreeContext
from eagle_decoding.fused_layer import MODELS, attention_block, gated_mlp, is_stock, untouched
from eagle_decoding.layer import LayerStack

DECODERS = [model + "Model" for model in MODELS]


def decoder_forward(decoder: Any) -> Callable[..., BaseModelOutputWithPast] | None:
    """A forward that runs the layers over a tree's rows in one op, and over a prompt's as the stock one does.

    Every bit is that of `layer_forward`, which takes five ops a layer: what is saved is their way through Python. None
    where a layer has parts that the op lacks, or where somebody else wants to hear of its calls.
    """
    layers = layer_stack(decoder.layers)
    if layers is None:
        return None

    def forward(*args: Any, eagle_tree: TreeContext | None = None, **kwargs: Any) -> BaseModelOutputWithPast:
        if eagle_tree is None:
            stock: BaseModelOutputWithPast = type(decoder).forward(decoder, *args, **kwargs)
            return stock
        embedded, cache = decoder.embed_tokens(kwargs["input_ids"]), kwargs["past_key_values"]
        rotation = eagle_tree.rotation(*decoder.rotary_emb(embedded, kwargs["position_ids"]))
        hidden = layers(embedded, rotation, cache.buffer.data, cache.rows, eagle_tree)
        return BaseModelOutputWithPast(last_hidden_state=decoder.norm(hidden), past_key_values=cache)

    return forward


def layer_stack(layers: Sequence[Any]) -> LayerStack | None:
    """The layers as one; None where one of them has parts that the op lacks, or where they are not alike."""
    if not all(is_stock(layer) and untouched(layer) for layer in layers):
        return None
    blocks = [block for block in map(attention_block, layers) if block is not None]
    mlps = [mlp for mlp in (gated_mlp(layer.mlp) for layer in layers) if mlp is not None]
    kinds = {
        (block.num_heads, block.scale, block.eps, block.q_norm is None, block.qkv_bias is None) for block in blocks
    }
    if not len(blocks) == len(mlps) == len(layers) or len(kinds) != 1:
        return None
    return LayerStack([layer.input_layernorm.weight for layer in layers], blocks, mlps)
