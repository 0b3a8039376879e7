"""Random EAGLE-1 heads for tests, and their forward written down plainly, one token at a time."""

import torch
import torch.nn.functional as F
from models import VOCAB
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
    keys, values, states = [], [], []
    theta = config.rope_parameters["rope_theta"]
    frequency = theta ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
    bias = {name: tensor for name, tensor in tensors.items() if name.endswith(".bias")}

    def product(name: str, x: Tensor) -> Tensor:
        return F.linear(x, tensors[f"{name}.weight"], bias.get(f"{name}.bias"))

    for position, token in enumerate(tokens):
        feature = features[position] if position < len(features) else states[-1]
        x = product("fc", torch.cat((embed[token], feature)))
        angle = torch.cat((position * frequency,) * 2)

        def turn(flat: Tensor, angle: Tensor = angle) -> Tensor:
            heads = flat.view(-1, config.head_dim)
            first, second = heads.chunk(2, -1)
            return heads * angle.cos() + torch.cat((-second, first), -1) * angle.sin()

        keys.append(turn(product("layers.0.self_attn.k_proj", x)))
        values.append(product("layers.0.self_attn.v_proj", x).view(-1, config.head_dim))
        query = turn(product("layers.0.self_attn.q_proj", x))
        key, value = (torch.stack(rows, 1).repeat_interleave(len(query) // len(rows[0]), 0) for rows in (keys, values))
        weights = (torch.einsum("hd,hkd->hk", query, key) / config.head_dim**0.5).softmax(-1)
        x = x + product("layers.0.self_attn.o_proj", torch.einsum("hk,hkd->hd", weights, value).flatten())
        normed = F.rms_norm(x, x.shape, tensors["layers.0.post_attention_layernorm.weight"], config.rms_norm_eps)
        gate, up = (product(f"layers.0.mlp.{name}_proj", normed) for name in ("gate", "up"))
        states.append(x + product("layers.0.mlp.down_proj", F.silu(gate) * up))
    return torch.stack(states)
