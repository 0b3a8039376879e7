"""Logits processors that keep state from call to call: the text of generate, in batches as well."""

import pytest
import torch
from models import EOS, PAD, VOCAB, ScriptedDraft, eagle_decoder, prompts, tiny_target
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, SynthIDTextWatermarkingConfig

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.tree import DraftTree


class Grammar(LogitsProcessor):
    """A state machine for each row, moved on by the newest token of each call as those of grammar libraries are.

    Raises AssertionError for a batch of another size, and for a token after a row's end that is no padding.
    """

    def __init__(self, eos: int | None = None) -> None:
        self.states: list[int] = []
        self.ended: list[bool] = []
        self.eos = eos
        self.calls: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls.append(input_ids.clone())
        if not self.states:
            self.states, self.ended = [0] * len(input_ids), [False] * len(input_ids)
        else:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                assert token == PAD or not self.ended[row]
                self.states[row] = (self.states[row] * 31 + token) % 1009
                self.ended[row] |= token == self.eos
        assert len(self.states) == len(input_ids)
        allowed = (torch.tensor(self.states)[:, None] * 7 + torch.arange(20) * 13) % VOCAB
        return scores + torch.full_like(scores, -torch.inf).scatter(1, allowed, 0.0)


def scripted(target, text: Tensor, inputs: dict, accuracy: float = 0.9) -> SpeculativeDecoder:
    """A decoder that drafts trees along given texts."""
    starts = (inputs["attention_mask"] == 0).sum(1).tolist()
    texts = [row[start:].tolist() for row, start in zip(text, starts, strict=True)]
    return SpeculativeDecoder(target, ScriptedDraft(texts, accuracy, num_nodes=10))


@pytest.mark.parametrize("ends", [False, True], ids=["to-the-length", "rows-that-end"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_state_for_each_row(batch, ends):
    """Plain decoding calls the processor as generate does; drafting gives the same text in fewer rounds."""
    target, inputs = tiny_target(), prompts(batch)
    settings = {**inputs, "do_sample": False, "max_new_tokens": 30, "eos_token_id": None, "pad_token_id": PAD}
    expected = target.generate(**settings, logits_processor=LogitsProcessorList([Grammar()]))
    if ends:
        settings["eos_token_id"] = eos = int(expected[0, 20])
    stock, plainly, drafting = (Grammar(settings["eos_token_id"]) for _ in range(3))
    expected = target.generate(**settings, logits_processor=LogitsProcessorList([stock]))
    decoder = scripted(target, expected, inputs)
    assert torch.equal(decoder.generate(**settings, speculate=False, logits_processor=[plainly]), expected)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(plainly.calls, stock.calls, strict=True))
    assert torch.equal(decoder.generate(**settings, logits_processor=[drafting]), expected)
    for mine, theirs in zip(drafting.calls, stock.calls, strict=False):
        assert torch.equal(mine, theirs)
    assert decoder.stats.tokens_per_round > 1.3
    assert not ends or bool((expected == eos).any())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("settings", [{"do_sample": False}, {"do_sample": True, "temperature": 0.7, "seed": 3}])
def test_a_watermark(batch, settings):
    target, inputs = tiny_target(), prompts(batch)
    watermark = SynthIDTextWatermarkingConfig(keys=[654, 400, 836, 123, 340, 443], ngram_len=5)
    settings = {**inputs, **settings, "max_new_tokens": 20, "eos_token_id": None, "watermarking_config": watermark}
    decoder = eagle_decoder(target)
    plain = decoder.generate(**settings, speculate=False)
    assert torch.equal(scripted(target, plain, inputs).generate(**settings), plain)
    if not settings["do_sample"]:
        assert torch.equal(plain, target.generate(**settings))


def test_a_function_of_the_request():
    """Tokens are allowed by the request's own number and text; any other text is an error."""
    target, inputs = tiny_target(), prompts(3)

    def allowed(request: int, text: Tensor) -> list[int]:
        assert torch.equal(text[:11], inputs["input_ids"][request])
        return list(range(3 + request, 60 + len(text) % 3))

    settings = {**inputs, "do_sample": False, "max_new_tokens": 20, "prefix_allowed_tokens_fn": allowed}
    expected = target.generate(**settings)
    assert torch.equal(scripted(target, expected, inputs).generate(**settings), expected)


def test_stateless_processors_let_each_request_go_its_own_way():
    """A request with good drafts is not held back by one with bad ones."""
    target, inputs = tiny_target(), prompts(2)
    settings = {**inputs, "do_sample": False, "max_new_tokens": 24, "eos_token_id": None, "repetition_penalty": 1.2}
    expected = target.generate(**settings)
    decoder = scripted(target, expected, inputs, accuracy=1.0)
    decoder.draft.texts[1] = [EOS]
    decoder.generate(**settings)
    assert decoder.stats.rounds < 2 * 23


class Sometimes(ScriptedDraft):
    """Drafts in every other round."""

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        self.num_nodes = 11 - self.num_nodes
        return super().propose(root_tokens, context_len)


def test_a_round_without_drafts_pads_no_request_for_another():
    """Not while both are at work at different lengths, nor once the longer has ended: the processor would punish it."""
    target, inputs = tiny_target(), prompts(2)
    settings = {**inputs, "do_sample": False, "max_new_tokens": 24, "eos_token_id": None, "repetition_penalty": 3.0}
    expected = target.generate(**settings)
    decoder = SpeculativeDecoder(target, Sometimes([expected[0].tolist(), [EOS]], 1.0, num_nodes=10))
    for pad in expected[1, -12:].tolist():
        assert torch.equal(decoder.generate(**settings, pad_token_id=pad), expected)
    assert decoder.stats.accepted > 0
