"""Sampled decoding: the text of a seed does not depend on drafting, and its law is the target's."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import VOCAB, ScriptedDraft, eagle_decoder, prompts, tiny_target
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.sampling import split_processors

SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 12},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.1, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 0.9, "typical_p": 0.9},
    {"temperature": 0.9, "repetition_penalty": 1.4},
]


def sample(decoder: SpeculativeDecoder, inputs: dict, **kwargs) -> torch.Tensor:
    return decoder.generate(**inputs, do_sample=True, max_new_tokens=30, **kwargs)


@pytest.mark.parametrize("warpers", SETTINGS, ids=lambda w: "-".join(w))
@pytest.mark.parametrize("batch", [1, 3])
def test_same_seed_same_text(warpers, batch):
    decoder = eagle_decoder(tiny_target())
    inputs = prompts(batch)
    for seed in range(4):
        plain = sample(decoder, inputs, seed=seed, speculate=False, **warpers)
        assert torch.equal(sample(decoder, inputs, seed=seed, **warpers), plain)


@pytest.mark.parametrize("top_k", [2**31, 2**70])
def test_a_top_k_beyond_any_vocabulary_keeps_all_tokens(top_k):
    """As in generate, for one value and for one of a request's own."""
    decoder, inputs = eagle_decoder(tiny_target()), prompts(2)
    everything = sample(decoder, inputs, seed=1, top_k=0)
    assert torch.equal(sample(decoder, inputs, seed=1, top_k=top_k), everything)
    assert torch.equal(sample(decoder, inputs, seed=1, top_k=[top_k, 0]), everything)


def test_seeds_differ_and_torch_seeds_the_default():
    decoder = eagle_decoder(tiny_target())
    inputs = prompts(1)
    assert not torch.equal(sample(decoder, inputs, seed=1), sample(decoder, inputs, seed=2))
    torch.manual_seed(7)
    first = sample(decoder, inputs)
    torch.manual_seed(7)
    assert torch.equal(sample(decoder, inputs), first)


@pytest.mark.parametrize("speculate", [True, False])
def test_greedy_decoding_leaves_torchs_generator_alone(speculate):
    decoder, before = eagle_decoder(tiny_target()), torch.get_rng_state()
    decoder.generate(**prompts(2), do_sample=False, max_new_tokens=6, speculate=speculate)
    assert torch.equal(torch.get_rng_state(), before)


def test_text_is_independent_of_the_batch():
    """A request with its seed gives the same text alone and in any place of a batch."""
    decoder = eagle_decoder(tiny_target())
    inputs = prompts(3)
    together = sample(decoder, inputs, seed=[5, 6, 7], eos_token_id=None)
    for order in ([2, 0, 1], [1], [0, 2]):
        part = {name: t[order] for name, t in inputs.items()}
        alone = sample(decoder, part, seed=[5 + b for b in order], eos_token_id=None)
        assert torch.equal(alone, together[order])


@pytest.mark.parametrize("seeds", [[5, 60], torch.tensor([5, 60])], ids=["list", "tensor"])
def test_sequences_of_one_request_draw_with_its_seed_and_those_that_follow(seeds):
    """As with one seed for a call of this request alone; a list with a seed for each sequence is taken as it stands."""
    decoder, inputs = eagle_decoder(tiny_target()), prompts(2)
    settings = {"num_return_sequences": 3, "eos_token_id": None}
    together = sample(decoder, inputs, seed=seeds, **settings)
    assert len(together.unique(dim=0)) == 6
    for request, seed in enumerate([5, 60]):
        part = {name: t[request : request + 1] for name, t in inputs.items()}
        assert torch.equal(sample(decoder, part, seed=seed, **settings), together[3 * request : 3 * request + 3])
    assert torch.equal(sample(decoder, inputs, seed=[5, 6, 7, 60, 61, 62], **settings), together)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    accuracy=st.floats(0, 1),
    num_nodes=st.integers(1, 40),
    seed=st.integers(0, 2**62),
    batch=st.integers(1, 3),
    warpers=st.sampled_from([{}, *SETTINGS]),
)
def test_no_draft_changes_the_text(accuracy, num_nodes, seed, batch, warpers):
    target = tiny_target()
    inputs = prompts(batch)
    decoder = SpeculativeDecoder(target, ScriptedDraft([], accuracy, num_nodes, seed))
    plain = sample(decoder, inputs, seed=seed, speculate=False, **warpers)
    decoder.draft.texts = [
        row[int((mask == 0).sum()) :].tolist() for row, mask in zip(plain, inputs["attention_mask"], strict=True)
    ]
    assert torch.equal(sample(decoder, inputs, seed=seed, **warpers), plain)


def test_first_token_follows_the_softmax():
    """Chi-square of the first sampled token against the target's own distribution; a wrong temperature must fail."""
    target = tiny_target()
    inputs = prompts(1)
    draws = 4000
    with torch.no_grad():
        logits = target(**inputs).logits[0, -1].double()
    batch = {name: t.expand(draws, -1) for name, t in inputs.items()}
    decoder = eagle_decoder(target)
    tokens = decoder.generate(**batch, do_sample=True, top_k=0, max_new_tokens=1, seed=11)[:, -1]
    counts = torch.bincount(tokens, minlength=VOCAB).double()
    assert chi_square(counts, torch.softmax(logits, -1) * draws) < 1
    assert chi_square(counts, torch.softmax(logits / 1.3, -1) * draws) > 1


TEMPERATURE, TOP_K, TOP_P, MIN_P = (
    TemperatureLogitsWarper(0.5),
    TopKLogitsWarper(7),
    TopPLogitsWarper(0.8),
    MinPLogitsWarper(0.1),
)
PENALTY = RepetitionPenaltyLogitsProcessor(1.5)


@pytest.mark.parametrize(
    ("by_themselves", "fused"),
    [
        ([], []),
        ([], [TEMPERATURE, TOP_K, TOP_P, MIN_P]),
        ([PENALTY], [TEMPERATURE, TOP_P]),
        ([TOP_P], [TEMPERATURE]),
        ([TEMPERATURE], [TEMPERATURE, TOP_K]),
        ([TEMPERATURE, TypicalLogitsWarper(0.9)], []),
        ([TEMPERATURE, TopPLogitsWarper(0.8, min_tokens_to_keep=2)], [MIN_P]),
        ([TopKLogitsWarper(7, filter_value=0.0)], []),
    ],
)
def test_only_what_the_fused_op_does_is_fused(by_themselves, fused):
    assert split_processors([*by_themselves, *fused]) == (by_themselves, fused)


@pytest.mark.parametrize(
    ("warpers", "settings"),
    [
        ([TemperatureLogitsWarper(4.0)], {"temperature": 0.5}),
        ([TopPLogitsWarper(0.6), TemperatureLogitsWarper(8.0)], {}),
        ([TopPLogitsWarper(0.4)], {"top_p": 0.9}),
        ([TopPLogitsWarper(0.01, min_tokens_to_keep=5)], {}),
        ([TopKLogitsWarper(1, filter_value=0.0)], {}),
    ],
    ids=["two-temperatures", "top-p-first", "two-top-p", "min-tokens-to-keep", "filter-value"],
)
def test_warpers_of_the_caller_act_as_in_generate(warpers, settings):
    """The first token has the law of generate's own scores, and drafting does not change the text."""
    target, inputs, draws = tiny_target(), prompts(1), 2000
    settings = {"do_sample": True, "top_k": 0, "logits_processor": LogitsProcessorList(warpers), **settings}
    dictionary = {"return_dict_in_generate": True, "output_scores": True}
    scores = target.generate(**inputs, max_new_tokens=1, **settings, **dictionary).scores[0]
    decoder = eagle_decoder(target)
    batch = {name: t.expand(draws, -1) for name, t in inputs.items()}
    tokens = decoder.generate(**batch, max_new_tokens=1, seed=5, speculate=False, **settings)[:, -1]
    counts = torch.bincount(tokens, minlength=VOCAB).double()
    assert chi_square(counts, scores[0].double().softmax(-1) * draws) < 1
    plain = decoder.generate(**inputs, max_new_tokens=20, seed=5, speculate=False, **settings)
    assert torch.equal(decoder.generate(**inputs, max_new_tokens=20, seed=5, **settings), plain)


class Idle(LogitsProcessor):
    """Changes nothing; as a class of the caller's own it makes requests go in step."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


@pytest.mark.parametrize("speculate", [True, False])
@pytest.mark.parametrize("idle", [Idle(), RepetitionPenaltyLogitsProcessor(1.0)], ids=["in-step", "each-its-own-way"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_processor_that_changes_nothing_changes_no_text(batch, idle, speculate):
    """Walks draw with the noise that the fused op draws with for all nodes."""
    decoder, inputs = eagle_decoder(tiny_target()), prompts(batch)
    fused = sample(decoder, inputs, seed=3, top_k=0)
    walked = sample(decoder, inputs, seed=3, top_k=0, logits_processor=[idle], speculate=speculate)
    assert torch.equal(walked, fused)


@pytest.mark.parametrize("warper", [TEMPERATURE, TOP_K, TopKLogitsWarper(1, filter_value=100.0)])
def test_warpers_of_the_caller_leave_greedy_decoding_greedy(warper):
    target, inputs = tiny_target(), prompts(2)
    settings = {"do_sample": False, "max_new_tokens": 20, "logits_processor": LogitsProcessorList([warper])}
    expected = target.generate(**inputs, **settings)
    for speculate in (True, False):
        assert torch.equal(eagle_decoder(target).generate(**inputs, speculate=speculate, **settings), expected)


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Statistic relative to a bound that a true law passes but for one case in millions; cells under 5 are merged."""
    small = expected < 5
    counts = torch.cat([counts[~small], counts[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    degrees = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum().item()
    return statistic / (degrees + 5 * (2 * degrees) ** 0.5)
