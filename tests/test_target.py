"""What a target captures on its way to the logits, and the logits of every kind, against transformers."""

import pytest
import torch
from models import KINDS, prompts, tiny_target

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.drafts import NoDraft
from eagle_decoding.target import Target, output_weight


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


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_of_every_kind_are_the_stock_models(kind):
    """Along a text that was decoded; and what drafts take for the output projection makes them of the last state."""
    model, prompt = tiny_target(kind), prompts(1)["input_ids"]
    record = {"return_dict_in_generate": True, "output_logits": True, "eos_token_id": None}
    decoded = SpeculativeDecoder(model, NoDraft()).generate(prompt, do_sample=False, max_new_tokens=12, **record)
    stock = model(decoded.sequences, output_hidden_states=True)
    expected = stock.logits[0, prompt.shape[1] - 1 : -1]
    torch.testing.assert_close(torch.cat(list(decoded.logits)), expected, rtol=1e-4, atol=1e-4)
    of_states = stock.hidden_states[-1] @ output_weight(model).T
    torch.testing.assert_close(of_states, stock.logits, rtol=1e-4, atol=1e-4)
