"""Decoding with trees of sampled children: the text has the target's law, greedy text is the target's own."""

import pytest
import torch
from drawn_draft import DrawnDraft, random_table
from models import VOCAB, prompts, tiny_target
from test_decode_sampling import chi_square, sample
from torch import Tensor
from transformers import LogitsProcessor

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, TypicalAcceptance

RULES = {"sampled": None, "hybrid": 1, "deterministic": 3}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [1, 3])
def test_greedy_text_is_the_targets_own(rule, batch):
    target, inputs = tiny_target(), prompts(batch)
    decoder = SpeculativeDecoder(target, DrawnDraft(random_table(), num_fixed=RULES[rule]))
    plain = decoder.generate(**inputs, do_sample=False, max_new_tokens=20, speculate=False)
    assert torch.equal(decoder.generate(**inputs, do_sample=False, max_new_tokens=20), plain)


def second_token_law(target, inputs, **warpers) -> torch.Tensor:
    """[VOCAB] float64: the law of the second new token, summed over the first."""
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper

    processors = LogitsProcessorList()
    if "repetition_penalty" in warpers:
        processors.append(RepetitionPenaltyLogitsProcessor(warpers["repetition_penalty"]))
    processors.append(TemperatureLogitsWarper(warpers["temperature"]))

    def law(prefix: torch.Tensor) -> torch.Tensor:
        return processors(prefix, target(prefix).logits[:, -1]).double().softmax(-1)

    with torch.no_grad():
        first = law(inputs["input_ids"])[0]
        longer = torch.cat([inputs["input_ids"].expand(VOCAB, -1), torch.arange(VOCAB)[:, None]], dim=1)
        return first @ law(longer)


@pytest.mark.parametrize("warpers", [{"temperature": 1.0}, {"temperature": 0.7, "repetition_penalty": 1.5}])
@pytest.mark.parametrize("rule", RULES)
def test_second_token_has_the_targets_law(rule, warpers):
    """The first new token comes from the prompt; the second is the first that a tree decides."""
    target, inputs, draws = tiny_target(), prompts(1), 1500 if "repetition_penalty" not in warpers else 300
    batch = {name: t.expand(draws, -1) for name, t in inputs.items()}
    decoder = SpeculativeDecoder(target, DrawnDraft(random_table(), num_fixed=RULES[rule]))
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": 2, "seed": 5, "eos_token_id": None}
    tokens = decoder.generate(**batch, **settings, **warpers)[:, -1]
    counts = torch.bincount(tokens, minlength=VOCAB).double()
    assert decoder.stats.accepted > 0
    assert chi_square(counts, second_token_law(target, inputs, **warpers) * draws) < 1


@pytest.mark.parametrize("typical_acceptance", [None, TypicalAcceptance()])
@pytest.mark.parametrize("rule", RULES)
def test_scores_are_those_of_the_emitted_path(rule, typical_acceptance):
    """output_scores with drawn trees: one row a token, each the processed logits after the tokens before it."""
    target, inputs = tiny_target(), prompts(1)
    decoder = SpeculativeDecoder(target, DrawnDraft(random_table(), num_fixed=RULES[rule]))
    output = decoder.generate(
        **inputs, do_sample=True, top_k=0, repetition_penalty=1.3, max_new_tokens=12, seed=2, eos_token_id=None,
        return_dict_in_generate=True, output_scores=True, output_logits=True, typical_acceptance=typical_acceptance,
    )  # fmt: skip
    with torch.no_grad():
        logits = target(output.sequences).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
    assert len(output.logits) == len(logits)
    torch.testing.assert_close(torch.cat(output.logits), logits, rtol=1e-4, atol=1e-4)
    assert not torch.equal(torch.cat(output.scores), torch.cat(output.logits))


class TokensOfItsRow(LogitsProcessor):
    """Allows row b of the batch the tokens b, b + 3, b + 6 and so on; it works in place, as processors may."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows, tokens = torch.arange(len(scores))[:, None], torch.arange(VOCAB)
        return scores.masked_fill_(tokens % 3 != rows, -torch.inf)


@pytest.mark.parametrize("rule", RULES)
def test_a_processor_sees_each_request_in_its_own_row(rule):
    decoder, inputs = SpeculativeDecoder(tiny_target(), DrawnDraft(random_table(), num_fixed=RULES[rule])), prompts(3)
    text = sample(decoder, inputs, seed=5, top_k=0, eos_token_id=None, logits_processor=[TokensOfItsRow()])
    new = text[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(new % 3, torch.arange(3)[:, None].expand_as(new))


@pytest.mark.parametrize("rule", RULES)
def test_trees_are_traversed_where_all_children_were_drawn(rule, monkeypatch):
    traversals, verify = [], eagle_kernels.verify_rejection

    def watched(*args: Tensor, traversal: bool, **kwargs: object) -> tuple[Tensor, Tensor, Tensor]:
        traversals.append(traversal)
        return verify(*args, traversal=traversal, **kwargs)

    monkeypatch.setattr(eagle_kernels, "verify_rejection", watched)
    decoder = SpeculativeDecoder(tiny_target(), DrawnDraft(random_table(), num_fixed=RULES[rule]))
    sample(decoder, prompts(2), seed=5)
    assert set(traversals) == {rule == "sampled"}
