"""What a target captures on its way to the logits, boundary by boundary, against transformers."""

import pytest
import torch
from models import prompts, tiny_target

from eagle_decoding.target import Target


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@torch.no_grad()
def test_each_boundary_is_the_residual_stream_there(fused):
    """transformers tells of the stream behind the last layer only after its norm, so that one is normed first."""
    model, prompt = tiny_target(), prompts(1)["input_ids"]
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    model.model.norm.weight.uniform_(0.5, 1.5)
    *streams, normed = model(prompt, output_hidden_states=True).hidden_states
    target = Target(model, tuple(range(layers + 2)), fused)
    cache, length = target.new_cache(1), prompt.shape[1]
    cache.buffer.reserve(length)
    with target.attached():
        output = target.prefill(prompt, torch.tensor([length], dtype=torch.int32), cache)
    features = output.features.split(width, -1)
    for actual, expected in zip(features, [*streams, None, normed], strict=True):
        actual, expected = (model.model.norm(actual), normed) if expected is None else (actual, expected)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
