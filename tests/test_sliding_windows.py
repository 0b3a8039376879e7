"""Targets with sliding windows and sinks: texts longer than the window, prompts, and a node's logits bit by bit."""

import pytest
import torch
from compare import assert_bitwise, assert_close
from models import EOS, ScriptedDraft, eagle_decoder, prompts, tiny_target

from eagle_decoding import SpeculativeDecoder, prompt_attention

WINDOWED = {
    "mistral": {"sliding_window": 128},
    "qwen2": {"use_sliding_window": True, "sliding_window": 130, "max_window_layers": 2},
    "qwen3-moe": {"use_sliding_window": True, "sliding_window": 128},
    "phi3": {"sliding_window": 140},
    "gemma3": {},
    "gpt-oss": {},
    "olmo3": {},
}
LIFTED = {"sliding_window": 4096}
GREEDY = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": None}
LONG = 145  # tokens of a prompt: text goes on behind the window, in prompts and in trees


def windowed(kind: str, dtype: torch.dtype = torch.float32, **more: object):
    return tiny_target(kind, dtype, **WINDOWED[kind], **more)


@pytest.mark.parametrize("kind", WINDOWED)
def test_text_is_what_transformers_generates(kind, device):
    target, inputs = windowed(kind).to(device), {name: x.to(device) for name, x in prompts(2, LONG).items()}
    expected = target.generate(**inputs, **GREEDY)
    decoder = eagle_decoder(target)
    assert torch.equal(decoder.generate(**inputs, **GREEDY), expected)
    assert torch.equal(decoder.generate(**inputs, speculate=False, **GREEDY), expected)
    lifted = tiny_target(kind, **WINDOWED[kind] | LIFTED).to(device)
    assert not torch.equal(eagle_decoder(lifted).generate(**inputs, **GREEDY), expected)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3-moe", "gemma3", "gpt-oss"])
def test_logits_of_tree_and_plain_decoding_agree(kind, dtype):
    """Fused layers, stock ones, and experts; accepted paths cross the beginning of the window."""
    target, inputs = windowed(kind, dtype), prompts(2, LONG - 30)
    settings = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    decoder = SpeculativeDecoder(target, ScriptedDraft([], accuracy=0.9, num_nodes=23))
    plain = decoder.generate(**inputs, speculate=False, **settings)
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    decoder.draft.texts = [row[skip:].tolist() for row, skip in zip(plain.sequences, padding, strict=True)]
    speculative = decoder.generate(**inputs, **settings)
    assert decoder.stats.tokens_per_round > 2
    for step, (actual, expected) in enumerate(zip(speculative.logits, plain.logits, strict=True)):
        assert_bitwise(actual, expected, f"logits of step {step}")


@pytest.mark.parametrize("window", [None, 5, 16, 40, 300])
@pytest.mark.parametrize("sinks", [None, [0.0, -3.0, 2.0, 30.0]])
def test_prompts_in_pieces(device, dtype, monkeypatch, window, sinks):
    monkeypatch.setattr(prompt_attention, "ROWS", 16)
    query = torch.randn(2, 4, 53, 8).to(dtype).to(device)
    key, value = (torch.randn(2, 2, 53, 8).to(dtype).to(device) for _ in range(2))
    sinks = None if sinks is None else torch.tensor(sinks, dtype=dtype, device=device)
    distance = torch.arange(53)[:, None] - torch.arange(53)
    hidden = ((distance < 0) | (distance >= (window or 53))).to(device)
    keys, values = (x.double().repeat_interleave(2, 1) for x in (key, value))
    scores = (query.double() @ keys.mT * 0.3).masked_fill(hidden, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(2, -1, 53, 1)], -1)
    expected = (scores.softmax(-1)[..., :53] @ values).transpose(1, 2)
    actual = prompt_attention.prompt_attention(query, key, value, 0.3, window, sinks)
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    assert actual.is_contiguous()
    assert_close(actual, expected, tolerance, tolerance)


def test_layers_that_attend_everything_take_no_window():
    """A window that no layer has is no reason to refuse a model."""
    target = tiny_target("qwen2", sliding_window=16, use_sliding_window=True, max_window_layers=4)
    assert set(target.config.layer_types) == {"full_attention"}
    inputs = prompts(1)
    settings = {**GREEDY, "eos_token_id": EOS}
    assert torch.equal(eagle_decoder(target).generate(**inputs, **settings), target.generate(**inputs, **settings))
