"""Medusa and Hydra heads in one shape: a small network for each depth of the tree, and what its tensors are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eagle_decoding.checkpoint.config import LayerConfig
from eagle_decoding.checkpoint.errors import CheckpointError


def layer_of(target: Any) -> LayerConfig:
    """The shape of a layer of the target, from its transformers configuration: what Hydra++ runs over the committed
    text."""
    config = target.get_text_config()
    return LayerConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab_size=config.vocab_size,
        draft_vocab_size=config.vocab_size,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters=rope_of(config),
        max_position_embeddings=config.max_position_embeddings,
        attention_bias=bool(getattr(config, "attention_bias", False)),
    )


def rope_of(target: Any) -> dict[str, Any]:
    """The rotary parameters of a head's layer: the target's, or those of its layers that attend all rows, as the head
    does; but a head rotates its queries and keys whole."""
    parameters = target.rope_parameters.get("full_attention", target.rope_parameters)
    return {name: value for name, value in parameters.items() if name != "partial_rotary_factor"}


@dataclass(frozen=True)
class DepthHeadsConfig:
    """Heads of which number d drafts the token d + 2 after the feature it reads.

    method: "medusa" heads read the target's state alone (Cai et al. 2024, arXiv 2401.10774); "hydra" heads read, beside
        it, the embeddings of the tokens between: head d of the d + 1 newest ones on its path (Ankner et al. 2024,
        arXiv 2402.05109).
    num_layers: residual blocks x + silu(W x + b) in a head. As published, blocks share weights: all of a Medusa head,
        all but the first of a Hydra head.
    residual_projection: the first block of a Hydra head, whose input is wider than its output, adds a learnt projection
        of its input; else it adds the state, the first hidden_size entries of its input.
    shared_path: the tokens of a Hydra head's path are added to the state, each through a matrix that depends on how
        many tokens came after it alone and that all heads share; blocks then read the sum (this trainer's heads; a
        published head's projection of the residual and first block can express them).
    output_map: a matrix of each head's own stands before the lm_head (this trainer's; lm_head @ map is the projection
        of a published head).
    own_lm_head: every head has a projection to the draft vocabulary of its own, with a bias if lm_head_bias; else the
        target's rows serve all heads.
    prefix: a layer over the committed states whose output takes the state's place (Hydra++).
    rank_accuracy[d][r]: how often the candidate of rank r was right at depth d when the path above it was, as measured
        on training text; None if nobody measured.
    """

    method: str
    hidden_size: int
    vocab_size: int
    draft_vocab_size: int
    num_heads: int = 4
    num_layers: int = 1
    residual_projection: bool = False
    shared_path: bool = False
    output_map: bool = False
    own_lm_head: bool = False
    lm_head_bias: bool = False
    prefix: LayerConfig | None = None
    rank_accuracy: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.num_layers < 1:
            raise CheckpointError(
                f"The {self.method} checkpoint has {self.num_heads} heads of {self.num_layers} layers; "
                "it takes at least one of each."
            )
        if not 0 < self.draft_vocab_size <= self.vocab_size:
            raise CheckpointError(
                f"The draft vocabulary has {self.draft_vocab_size} tokens; it must lie in 1..{self.vocab_size}."
            )
        if self.rank_accuracy is not None and len(self.rank_accuracy) != self.num_heads:
            raise CheckpointError(
                f"rank_accuracy describes {len(self.rank_accuracy)} heads, but there are {self.num_heads}."
            )

    @property
    def reads_path(self) -> bool:
        return self.method == "hydra"

    @property
    def has_reduced_vocab(self) -> bool:
        return self.draft_vocab_size < self.vocab_size

    @property
    def blocks(self) -> list[int]:
        """For each layer of a head, which of its blocks it applies."""
        return [0] + [int(self.reads_path)] * (self.num_layers - 1)

    def input_size(self, head: int) -> int:
        return self.hidden_size * (head + 2 if self.reads_path else 1)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the heads, in this project's names."""
        hidden, shapes = self.hidden_size, dict[str, tuple[int, ...]]()
        for head in range(self.num_heads):
            prefix = f"heads.{head}."
            for block in sorted(set(self.blocks)):
                width = hidden if block or self.shared_path else self.input_size(head)
                shapes |= {f"{prefix}blocks.{block}.weight": (hidden, width), f"{prefix}blocks.{block}.bias": (hidden,)}
            if self.residual_projection:
                shapes[f"{prefix}residual.weight"] = (hidden, self.input_size(head))
                shapes[f"{prefix}residual.bias"] = (hidden,)
            if self.shared_path:
                shapes[f"tokens.{head}.weight"] = (hidden, hidden)
            if self.output_map:
                shapes[f"{prefix}map.weight"] = (hidden, hidden)
            if self.own_lm_head:
                shapes[f"{prefix}lm_head.weight"] = (self.draft_vocab_size, hidden)
            if self.lm_head_bias:
                shapes[f"{prefix}lm_head.bias"] = (self.draft_vocab_size,)
        if self.prefix:
            shapes |= self.prefix.layer_shapes("prefix.layer.", hidden)
            shapes |= {f"prefix.{norm}.weight": (hidden,) for norm in ("layer.input_layernorm", "norm")}
        if self.has_reduced_vocab:
            shapes["d2t"] = (self.draft_vocab_size,)
        return shapes


@dataclass(frozen=True)
class DepthHeads:
    """Medusa or Hydra heads: their configuration and their tensors under this project's names.

    tensors: as `DepthHeadsConfig.tensor_shapes`; `d2t` [Vd], int64: target id = draft id + d2t[draft id].
    """

    config: DepthHeadsConfig
    tensors: dict[str, Tensor]

    def path_sum(self, head: int) -> Tensor:
        """[H, input_size] matrix that adds the path to the state, oldest token first, for heads with a shared path."""
        matrices = [self.tensors[f"tokens.{after}.weight"] for after in range(head, -1, -1)]
        return torch.cat([torch.eye(self.config.hidden_size, dtype=matrices[0].dtype), *matrices], 1)
