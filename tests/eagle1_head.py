"""Random EAGLE-1 heads for tests, and their forward written down plainly, one token at a time."""

import torch
from models import VOCAB
from plain_layer import PlainLayer
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import Eagle1Config, Head


def random_eagle1(target: PreTrainedModel, draft_vocab: int = VOCAB, **options: object) -> Head:
    """A head with random weights that fits the target."""
    generator = torch.Generator().manual_seed(4)
    config = Eagle1Config(
        hidden_size=target.config.hidden_size,
        intermediate_size=40,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=VOCAB,
        draft_vocab_size=draft_vocab,
        **options,
    )
    tensors = {name: torch.randn(shape, generator=generator) * 0.15 for name, shape in config.tensor_shapes().items()}
    if config.has_reduced_vocab:
        kept = torch.randperm(VOCAB, generator=generator)[:draft_vocab].sort().values
        tensors["d2t"] = kept - torch.arange(draft_vocab)
    return Head(config, tensors)


def plain_states(
    config: Eagle1Config, tensors: dict[str, Tensor], embed: Tensor, tokens: list[int], features: Tensor
) -> Tensor:
    """[len(tokens), H]: what the head makes of the pairs (token i, feature i), and where features [F, H] end, of
    (token i, own state before it)."""
    layer, states = PlainLayer(config, tensors), []
    for position, token in enumerate(tokens):
        feature = features[position] if position < len(features) else states[-1]
        x = layer.product("fc", torch.cat((embed[token], feature)))
        states.append(layer.step(x, x))
    return torch.stack(states)
