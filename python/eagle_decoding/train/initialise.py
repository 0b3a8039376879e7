"""Where a head starts: random, or warm from the target's last layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eagle_decoding.checkpoint import CheckpointError, draft_directory, read_head
from eagle_decoding.train.config import ConfigError
from eagle_decoding.train.eagle1_head import Eagle1Head
from eagle_decoding.train.eagle3_head import Eagle3Head
from eagle_decoding.train.head import DraftHead
from eagle_decoding.train.rows import Documents

EMBEDDING_STD = 0.01
RIDGE = 0.1  # of each input's variance
LEAST_STRETCH = 0.1  # smaller weights of the final norm count as this large, so that nothing divides by zero


def random_init(head: DraftHead, std: float) -> None:
    """Normal weights with the target's own initialiser range; norms start at one."""
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def start_from(head: DraftHead, source: str | Path) -> None:
    """Take every trained parameter from a head in any layout that reads; the draft vocabulary stays its own.

    source: directory or hub id. Raises CheckpointError if a parameter is missing there or has another shape.
    """
    tensors = read_head(draft_directory(source)).tensors
    for name, parameter in head.named_parameters():
        if name not in tensors or tensors[name].shape != parameter.shape:
            given = list(tensors[name].shape) if name in tensors else "absent"
            raise CheckpointError(
                f"{source} cannot be continued: {name} is {given} there and {list(parameter.shape)} in this "
                "configuration; set the head options to those it was trained with."
            )
        parameter.copy_(tensors[name])


@torch.no_grad()
def warm_eagle3(head: Eagle3Head, target: Any, documents: Documents, aux: Tensor, final: Tensor) -> None:
    """Start as the target's last layer applied to the last fused feature, almost blind to the embedding.

    fc is the identity on the last fused feature (scaled by its mean norm over the sample aux [R, A, Ht], final [R, Ht]
    if fc_norm removes it), q/k/v are the target's over the hidden half and small over the embedding half, the rest is
    copied, but no mixture of experts, and no layer of another shape than a head's.
    """
    config, source, layer = head.config, source_layer(target), head.layer
    hidden = config.hidden_size
    rms = _root_mean_square(head.features(aux, final)[:, -1]) if config.fc_norm else 1.0
    head.fc.weight.zero_()
    head.fc.weight[:, -hidden:] = torch.eye(hidden) * rms
    head.norm.weight.copy_(norm_factor(target.model.norm))
    if source is None:
        return
    copy_projections(layer.self_attn, source.self_attn, hidden)
    share = getattr(source, "residual_multiplier", 1.0)  # of Granite's residual stream
    layer.self_attn.o_proj.weight.copy_(source.self_attn.o_proj.weight * share)
    copy_mlp(layer.mlp, source.mlp)
    layer.mlp.down_proj.weight.mul_(share)
    layer.hidden_norm.weight.copy_(source.input_layernorm.weight)
    layer.post_attention_layernorm.weight.copy_(source.post_attention_layernorm.weight)


def norm_factor(norm: Any) -> Tensor:
    """What a norm of the target multiplies by: its weight, or one more in Gemma's."""
    weight: Tensor = norm.weight
    return weight + 1 if type(norm).__name__ == "Gemma3RMSNorm" else weight


def source_layer(target: Any) -> Any | None:
    """The target's last layer that a head's layer can start from: it rotates queries and keys, and has the same parts.

    None where the parts are others: projections in one, norms behind them, heads rotated otherwise.
    """
    source = [layer for layer in target.model.layers if getattr(layer.self_attn, "use_rope", True)][-1]
    parts = {name for name, _ in source.named_children()}
    return source if parts == {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"} else None


def copy_projections(mine: Any, theirs: Any, first: int, inputs: Tensor | float = 1.0) -> None:
    """The target's projections to queries, keys and values, over a head's inputs from `first` on; those before it get
    small weights.

    inputs: a factor for each of the target's. Queries are scaled by what the target's attention has beyond a head's.
    Raises ConfigError unless every key-value head of the target goes to as many of the head's.
    """
    heads, given = (part.k_proj.out_features // theirs.head_dim for part in (mine, theirs))
    if heads % given:
        raise ConfigError(
            f"head.num_kv_heads is {heads}, and a warm start copies the target's {given}; set it to a multiple of "
            "these, or head.warm_start=false."
        )
    for name in ("q_proj", "k_proj", "v_proj"):
        to, projection = getattr(mine, name), getattr(theirs, name)
        factor = theirs.scaling * theirs.head_dim**0.5 if name == "q_proj" else 1.0
        to.weight[:, :first].normal_(std=EMBEDDING_STD)
        to.weight[:, first:] = _repeat_heads(projection.weight * inputs * factor, to.out_features, theirs.head_dim)
        if to.bias is not None:
            to.bias.copy_(_repeat_heads(projection.bias * factor, to.out_features, theirs.head_dim))


def copy_mlp(mine: Any, theirs: Any) -> None:
    """The target's MLP, without biases; instead of a mixture of experts the random start stays."""
    if not hasattr(theirs, "experts"):
        for name in ("gate_proj", "up_proj", "down_proj"):
            getattr(mine, name).weight.copy_(getattr(theirs, name).weight)


@torch.no_grad()
def warm_eagle1(head: Eagle1Head, target: Any, documents: Documents, aux: Tensor, final: Tensor) -> None:
    """Start as the best linear guess at the next state, refined by the target's last layer once that learns to speak.

    fc is the ridge regression of the next state on (embedding, state) over the sample: documents and their states after
    the final norm, final [T, H]. The layer is the target's last with silent outputs (o and down are zero). The final
    norm stretched each value of a state by its weight; what reads states shrinks it again: q/k/v by the input norm's
    weight over the final norm's, the norm before the MLP by its own over the final norm's. Where the target's layer is
    of another shape than a head's, the head's is random.
    """
    source, layer = source_layer(target), head.layer
    norm = norm_factor(target.model.norm)
    stretch = torch.where(norm < 0, -1, 1) * norm.abs().clamp(min=LEAST_STRETCH)
    last = documents.starts[1:] - 1
    within = torch.ones_like(documents.input_ids, dtype=torch.bool).index_fill(0, last, False).nonzero()[:, 0]
    pairs = torch.cat((head.embed_tokens[documents.input_ids[within + 1]], final[within]), -1)
    head.fc.weight.copy_(ridge(pairs, final[within + 1]))
    if source is not None:
        copy_projections(layer.self_attn, source.self_attn, 0, source.input_layernorm.weight / stretch)
        copy_mlp(layer.mlp, source.mlp)
    for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
        projection.weight.zero_()
    before_mlp = layer if source is None else source
    shrunk = before_mlp.post_attention_layernorm.weight / stretch * _root_mean_square(final)
    layer.post_attention_layernorm.weight.copy_(shrunk)


def ridge(inputs: Tensor, outputs: Tensor) -> Tensor:
    """W [O, I] with inputs [N, I] @ W^T near outputs [N, O]; every input counts alike, whatever its size."""
    size = inputs.square().mean(0).sqrt().clamp(min=1e-6)
    scaled = inputs / size
    gram = scaled.T @ scaled
    gram.diagonal().add_(RIDGE * len(inputs))
    return (torch.linalg.solve(gram, scaled.T @ outputs) / size[:, None]).T


def _root_mean_square(states: Tensor) -> float:
    """Of each row [R, H], then the mean."""
    return states.square().mean(-1).sqrt().mean().item()


def _repeat_heads(rows: Tensor, out: int, head_dim: int) -> Tensor:
    """Each head's rows as often as a head with more key-value heads than the target needs them, up to `out` rows."""
    return rows.unflatten(0, (-1, head_dim)).repeat_interleave(out // rows.shape[0], 0).flatten(0, 1)
