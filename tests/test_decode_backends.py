"""Whole decodes on one backend: the trees and the text of the reference."""

import pytest
import torch
from models import ScriptedDraft, eagle_decoder, prompts, tiny_target

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.tree import DraftTree

TOKENS = {"max_new_tokens": 4, "eos_token_id": None}
SETTINGS = [{"do_sample": False}, {"do_sample": True, "temperature": 0.9, "top_k": 0, "seed": 5}]


def decode(decoder: SpeculativeDecoder, backend: str, device: str, **settings: object) -> torch.Tensor:
    inputs = {key: value.to(device) for key, value in prompts(1, length=4).items()}
    with eagle_kernels.use_backend(backend):
        return decoder.generate(**inputs, **TOKENS, **settings)


@pytest.mark.parametrize("name", ["triton", None])
def test_same_trees_as_the_reference(device, name, monkeypatch):
    """No draft changes the text, so the drafts themselves are compared."""
    decoder = eagle_decoder(tiny_target().to(device), TreeConfig(num_nodes=6, max_depth=2, topk=2), draft_vocab=40)
    decoder.graph = False  # replays would not pass by Python
    propose, trees = decoder.draft.propose, []

    def recorded(*arguments: torch.Tensor) -> DraftTree:
        trees.append(propose(*arguments))
        return trees[-1]

    monkeypatch.setattr(decoder.draft, "propose", recorded)
    text = decode(decoder, name, device, do_sample=False)
    drafted, trees = trees, []
    assert torch.equal(text, decode(decoder, "reference", device, do_sample=False))
    assert len(drafted) == len(trees) > 1
    for tree, expected in zip(drafted, trees, strict=True):
        assert torch.equal(tree.draft_tokens, expected.draft_tokens)
        assert torch.equal(tree.ancestor_mask, expected.ancestor_mask)


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["triton", None])
def test_same_text_when_drafts_are_accepted(device, name, settings):
    target = tiny_target().to(device)
    expected = decode(eagle_decoder(target), "reference", device, **settings)
    decoder = SpeculativeDecoder(target, ScriptedDraft(expected.tolist(), accuracy=1.0, num_nodes=5))
    assert torch.equal(decode(decoder, name, device, **settings), expected)
    assert decoder.stats.accepted > 0
