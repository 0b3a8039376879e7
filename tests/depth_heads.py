"""Random Medusa and Hydra heads for tests, and their forward written down plainly."""

import torch
import torch.nn.functional as F
from models import VOCAB
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import DepthHeads, DepthHeadsConfig
from eagle_decoding.drafts import Commit


def random_depth_heads(target: PreTrainedModel, method: str, draft_vocab: int = VOCAB, **options: object) -> DepthHeads:
    """Heads with random weights that fit the target."""
    generator = torch.Generator().manual_seed(3)
    hidden = target.config.hidden_size
    options = {"num_heads": 3} | options
    config = DepthHeadsConfig(method, hidden, VOCAB, draft_vocab, **options)
    tensors = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in config.tensor_shapes().items()}
    if config.has_reduced_vocab:
        kept = torch.randperm(VOCAB, generator=generator)[:draft_vocab].sort().values
        tensors["d2t"] = kept - torch.arange(draft_vocab)
    return DepthHeads(config, tensors)


def plain_logits(heads: DepthHeads, target: PreTrainedModel, head: int, inputs: Tensor) -> Tensor:
    """[draft vocabulary] in float64, from the concatenated inputs [input_size] of one row."""
    config, inputs = heads.config, inputs.double()
    tensors = {name: t.to(target.dtype).double() for name, t in heads.tensors.items() if name != "d2t"}
    state = inputs[: config.hidden_size]
    if config.shared_path:
        for i, token in enumerate(inputs[config.hidden_size :].split(config.hidden_size)):
            state = state + tensors[f"tokens.{head - i}.weight"] @ token
        inputs = state
    if config.residual_projection:
        state = tensors[f"heads.{head}.residual.weight"] @ inputs + tensors[f"heads.{head}.residual.bias"]
    for layer in range(config.num_layers):
        block = f"heads.{head}.blocks.{0 if layer == 0 or config.method == 'medusa' else 1}"
        inputs = state = state + F.silu(tensors[block + ".weight"] @ inputs + tensors[block + ".bias"])
    if config.output_map:
        state = tensors[f"heads.{head}.map.weight"] @ state
    if config.own_lm_head:
        logits = tensors[f"heads.{head}.lm_head.weight"] @ state
        return logits + tensors[f"heads.{head}.lm_head.bias"] if config.lm_head_bias else logits
    return target.get_output_embeddings().weight[target_ids(heads)].double() @ state


def assert_plain_logits(heads: DepthHeads, target: PreTrainedModel, head: int, inputs: Tensor, logits: Tensor) -> None:
    """logits float32[..., draft vocabulary] are those of inputs [..., input_size], but for the rounding of their sums:
    four units in the last place of the largest, whatever is left of terms that cancel."""
    expected = torch.stack([plain_logits(heads, target, head, row) for row in inputs.flatten(0, -2)])
    bound = 4 * torch.finfo(torch.float32).eps * float(expected.abs().max())
    torch.testing.assert_close(logits.flatten(0, -2).double(), expected, rtol=0, atol=bound)


def target_ids(heads: DepthHeads) -> Tensor:
    ids = torch.arange(heads.config.draft_vocab_size)
    return ids + heads.tensors["d2t"] if heads.config.has_reduced_vocab else ids


def random_commit(target: PreTrainedModel, lengths: list[int], committed: list[int], layers: int = 1) -> Commit:
    """Rows of a batch whose requests commit different numbers of them, with features of so many layers; the padding is
    poisoned."""
    generator = torch.Generator().manual_seed(len(lengths))
    rows, width = max(lengths), layers * target.config.hidden_size
    num_rows, context_len = (torch.tensor(values, dtype=torch.int32) for values in (lengths, committed))
    index = torch.arange(rows, dtype=torch.int32)
    features = torch.randn(len(lengths), rows, width, generator=generator)
    features[index >= num_rows[:, None]] = torch.nan
    return Commit(
        tokens=torch.randint(3, VOCAB, (len(lengths), rows), generator=generator).int(),
        features=features.to(target.dtype),
        position_ids=(context_len[:, None] + index).clamp(max=int((context_len + num_rows).max()) - 1),
        context_len=context_len,
        num_rows=num_rows,
        committed=max(a + b for a, b in zip(lengths, committed, strict=True)),
    )
