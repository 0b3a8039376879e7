"""Whole decodes on one backend: the same text as the reference."""

import pytest
import torch
from models import eagle_decoder, prompts, tiny_target

import eagle_kernels
from eagle_decoding import TreeConfig

SETTINGS = [{"do_sample": False}, {"do_sample": True, "temperature": 0.9, "seed": 5}]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["triton", "cpp"])
def test_same_text_as_the_reference(device, name, settings):
    target = tiny_target().to(device)
    inputs = {key: value.to(device) for key, value in prompts(2, length=6).items()}
    decoder = eagle_decoder(target, TreeConfig(num_nodes=6, max_depth=2, topk=2), draft_vocab=40)
    texts = {}
    for backend in (name, "reference"):
        with eagle_kernels.use_backend(backend):
            texts[backend] = decoder.generate(**inputs, max_new_tokens=7, eos_token_id=None, **settings)
        assert decoder.stats.rounds < 7, "no draft was accepted: the test says nothing about acceptance"
    assert torch.equal(texts[name], texts["reference"])
