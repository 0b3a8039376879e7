"""Sampled decoding: the text of a seed does not depend on drafting, and its law is the target's."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import VOCAB, ScriptedDraft, eagle_decoder, prompts, tiny_target

from eagle_decoding import SpeculativeDecoder

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


def test_seeds_differ_and_torch_seeds_the_default():
    decoder = eagle_decoder(tiny_target())
    inputs = prompts(1)
    assert not torch.equal(sample(decoder, inputs, seed=1), sample(decoder, inputs, seed=2))
    torch.manual_seed(7)
    first = sample(decoder, inputs)
    torch.manual_seed(7)
    assert torch.equal(sample(decoder, inputs), first)


def test_text_is_independent_of_the_batch():
    """A request with its seed gives the same text alone and in any place of a batch."""
    decoder = eagle_decoder(tiny_target())
    inputs = prompts(3)
    together = sample(decoder, inputs, seed=[5, 6, 7], eos_token_id=None)
    for order in ([2, 0, 1], [1], [0, 2]):
        part = {name: t[order] for name, t in inputs.items()}
        alone = sample(decoder, part, seed=[5 + b for b in order], eos_token_id=None)
        assert torch.equal(alone, together[order])


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


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Statistic relative to a bound that a true law passes but for one case in millions; cells under 5 are merged."""
    small = expected < 5
    counts = torch.cat([counts[~small], counts[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    degrees = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum().item()
    return statistic / (degrees + 5 * (2 * degrees) ** 0.5)
