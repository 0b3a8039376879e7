"""Tree attention registered with transformers' attention interface, so that stock models run on trees."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

import eagle_kernels
from eagle_decoding.prompt_attention import prompt_attention

NAME = "eagle_tree"


class Rotation(NamedTuple):
    """Rotary tables, and which of their rows belongs to which row of a forward.

    cos, sin:     [P, head_dim / 2] float32
    position_ids: [batch, rows] int32, rows of the tables
    """

    cos: Tensor
    sin: Tensor
    position_ids: Tensor


@dataclass
class TreeContext:
    """Where the rows of a forward sit; travels to every attention layer as the keyword argument `eagle_tree`.

    context_len:   [batch] int32, committed cache rows
    ancestor_mask: [batch, num_nodes, words] int64
    boundaries:    the layers whose entering states are asked for; as many as there are layers: what leaves the last one
    states:        where a forward that runs all layers in one op puts them, [batch, num_nodes, hidden] each
    """

    context_len: Tensor
    ancestor_mask: Tensor
    boundaries: tuple[int, ...] = ()
    states: dict[int, Tensor] = field(default_factory=dict)
    _rotation: Rotation | None = None

    def rotation(self, cos: Tensor, sin: Tensor) -> Rotation:
        """The model's rotary embeddings of the rows as tables, made for the first layer that asks.

        cos, sin: [batch, rows, head_dim], of which transformers makes both halves alike
        """
        if self._rotation is None:
            batch, rows, head_dim = cos.shape
            ids = torch.arange(batch * rows, dtype=torch.int32, device=cos.device).view(batch, rows)
            self._rotation = Rotation(
                cos[..., : head_dim // 2].flatten(0, 1).float().contiguous(),
                sin[..., : head_dim // 2].flatten(0, 1).float().contiguous(),
                ids,
            )
        return self._rotation


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    eagle_tree: TreeContext | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a prompt (causal, no TreeContext, no cache) or of a tree over the cache; transformers calls it.

    query: [batch, num_heads, tokens, head_dim]; key, value: [batch, num_kv_heads, rows, head_dim]
    sliding_window: how many tokens one sees at most, itself among them; s_aux: [num_heads], the heads' sinks
    returns [batch, tokens, num_heads, head_dim] and no weights
    Raises ValueError for softcapped scores, which the kernel does not compute, and for forwards over another cache than
    the decoder's own.
    """
    if softcap is not None:
        raise ValueError(f"Tree attention does not support softcap={softcap!r}; use a model without it.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if eagle_tree is None:
        if query.shape[2] != key.shape[2]:
            raise ValueError(
                f"A forward of {query.shape[2]} tokens over {key.shape[2]} rows of a cache of its own came while a "
                "decoder was at work, which attends trees and prompts only: call the model outside of generate."
            )
        return prompt_attention(query, key, value, scale, sliding_window, s_aux), None
    return eagle_kernels.tree_attention(
        query,
        key,
        value,
        eagle_tree.context_len,
        eagle_tree.ancestor_mask,
        scale,
        window=sliding_window,
        sinks=s_aux,
    ), None


AttentionInterface.register(NAME, attention_forward)
