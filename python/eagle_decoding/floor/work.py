"""Bytes and operations of a decoding round, phase by phase, from the weights of a target and of its EAGLE-3 head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import Eagle3Draft
from eagle_decoding.matrix import Matrix
from eagle_decoding.target import windows


@dataclass(frozen=True)
class Work:
    """What a phase cannot do without: bytes read and written, each once, and multiply-adds counted as two."""

    bytes: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.flops + other.flops)

    def __mul__(self, times: float) -> Work:
        return Work(self.bytes * times, self.flops * times)


@dataclass(frozen=True)
class Layers:
    """Weights that a forward streams once, whatever the number of rows, and the cache behind its attention.

    weight_bytes:     all weights that take part in a product, and norms, as they are stored
    flops_per_row:    2 * elements of the weight matrices
    kv_bytes:         keys and values of one cached row, all layers
    attention_flops:  of one row over one cached row, all layers: 4 * query heads * head_dim * layers
    window, windowed: committed rows that layers with a sliding window read at most, and the share of such layers
    """

    weight_bytes: float
    flops_per_row: float
    kv_bytes: float
    attention_flops: float
    window: int = 0
    windowed: float = 0.0

    def forward(self, rows: float, context_len: float, batch: int = 1) -> Work:
        """`rows` rows of each of `batch` requests over their committed rows; their own keys are written and read."""
        in_window = min(context_len, self.window)
        cached = context_len + self.windowed * (in_window - context_len) + rows
        return Work(
            self.weight_bytes + batch * self.kv_bytes * cached,
            batch * rows * (self.flops_per_row + self.attention_flops * cached),
        )


@dataclass(frozen=True)
class RoundModel:
    """A target with its head, in numbers.

    target:    the target's layers and output projection; the input embedding only where the output shares it
    layer:     the head's decoder layer
    fc:        the head's fusion of target features, once a committed row
    lm_head:   the head's output projection
    itemsize:  bytes of a logit
    """

    target: Layers
    layer: Layers
    fc: Layers
    lm_head: Layers
    vocab_size: int
    itemsize: int

    def plain_round(self, context_len: float, batch: int = 1) -> dict[str, Work]:
        """One token by plain decoding."""
        return {"verify": self.target.forward(1, context_len, batch), "sample": self.logits(1, batch)}

    def round(self, tree: TreeConfig, context_len: float, tokens_per_round: float, batch: int = 1) -> dict[str, Work]:
        """A round by phase. The draft takes in tokens_per_round committed rows, then expands max_depth - 1 levels."""
        levels = self.layer.forward(tree.topk, context_len, batch) * (tree.max_depth - 1)
        committed = self.layer.forward(tokens_per_round, context_len, batch)
        heads = self.lm_head.forward(1, 0, batch) + self.lm_head.forward(tree.topk, 0, batch) * (tree.max_depth - 1)
        return {
            "draft": self.fc.forward(tokens_per_round, 0, batch) + committed + levels + heads,
            "verify": self.target.forward(tree.num_nodes, context_len, batch),
            "sample": self.logits(tree.num_nodes, batch),
            "commit": Work(2 * batch * self.target.kv_bytes * (tokens_per_round - 1)),
        }

    def logits(self, rows: int, batch: int) -> Work:
        """Reading rows of logits once."""
        return Work(batch * rows * self.vocab_size * self.itemsize, batch * rows * self.vocab_size)


def round_model(target: PreTrainedModel, draft: Eagle3Draft) -> RoundModel:
    """Counts a target and the head that drafts for it, on any device, "meta" included.

    Raises ValueError for a mixture of experts: how many experts a tree's rows reach depends on the text.
    """
    config, itemsize = target.config, target.dtype.itemsize
    if hasattr(config, "num_local_experts"):
        raise ValueError(
            f"The floor is counted for dense targets, not for {config.model_type!r}: give another --target."
        )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers, sliding = config.num_hidden_layers, windows(config)
    head, own = draft.config, draft.layer
    return RoundModel(
        target=Layers(
            weight_bytes=streamed_elements(target) * itemsize,
            flops_per_row=2 * streamed_elements(target),
            kv_bytes=2 * layers * config.num_key_value_heads * head_dim * itemsize,
            attention_flops=4 * layers * config.num_attention_heads * head_dim,
            window=max(sliding, default=0),
            windowed=len(sliding) / layers,
        ),
        layer=layers_of(
            (own.attention.qkv, own.attention.output, own.mlp.gate_up, own.mlp.down),
            (own.attention.qkv_bias, draft.embed_norm, draft.hidden_norm, own.attention.norm),
            kv_bytes=2 * head.num_kv_heads * head.head_dim * own.dtype.itemsize,
            attention_flops=4 * head.num_heads * head.head_dim,
        ),
        fc=layers_of((draft.fc,), (*draft.fc_norms, draft.input_norm)),
        lm_head=layers_of((draft.lm_head,), (draft.norm,)),
        vocab_size=config.vocab_size,
        itemsize=itemsize,
    )


def layers_of(
    matrices: Iterable[Matrix], vectors: Iterable[Tensor | None], kv_bytes: float = 0, attention_flops: float = 0
) -> Layers:
    """A part of the head from the very tensors that its forward reads: norms and biases are the vectors."""
    matrices = tuple(matrices)
    return Layers(
        weight_bytes=sum(m.nbytes for m in matrices) + sum(v.nbytes for v in vectors if v is not None),
        flops_per_row=2 * sum(m.weight.numel() for m in matrices),
        kv_bytes=kv_bytes,
        attention_flops=attention_flops,
    )


def streamed_elements(target: PreTrainedModel) -> int:
    """Elements that every forward reads: all parameters but the input embedding, of which a row is read."""
    output: Any = target.get_output_embeddings()
    embedding = target.get_input_embeddings().weight
    total = sum(p.numel() for p in target.parameters() if p is not embedding)
    return total + (embedding.numel() if output is not None and output.weight is embedding else 0)
