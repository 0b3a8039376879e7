"""Targets and heads of a real model's shape with random weights: what a round takes does not depend on the weights."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.shapes import ModelShape
from eagle_decoding.checkpoint import Head, HeadConfig

STD = 0.02
SHARP = 8  # times STD: a head this sure of its favourites grows trees as deep as a trained one's, not just two levels


def random_target(shape: ModelShape, dtype: torch.dtype, device: str) -> LlamaForCausalLM:
    """A Llama of this shape; made in place, so that nothing but the weights is ever held."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=131072,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    model = model.to_empty(device=device).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=STD)
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)  # its buffers are no parameters
    return model


def random_head(shape: ModelShape, dtype: torch.dtype, device: str) -> Head:
    config = HeadConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        draft_vocab_size=shape.draft_vocab_size,
        target_hidden_size=shape.hidden_size,
    )
    sizes = config.tensor_shapes()
    tensors = {name: STD * torch.randn(size, dtype=dtype, device=device) for name, size in sizes.items()}
    tensors["norm.weight"] = torch.ones_like(tensors["norm.weight"])
    tensors["lm_head.weight"] *= SHARP
    if "d2t" in tensors:
        tensors["d2t"] = torch.zeros(shape.draft_vocab_size, dtype=torch.int64, device=device)
    return Head(config, tensors)
