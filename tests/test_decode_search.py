"""A search for counterexamples: trees, batches, seeds and parameters for which drafting would change the text."""

import time
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import PAD, VOCAB, ScriptedDraft, eagle_decoder, tiny_target

from eagle_decoding import SpeculativeDecoder, TreeConfig

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=100, database=None, derandomize=False)
target_of = cache(tiny_target)


@st.composite
def trees(draw: st.DrawFn) -> TreeConfig:
    depth, topk = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    nodes = draw(st.integers(2, min(40, 1 + topk + (depth - 1) * topk**2)))
    return TreeConfig(nodes, depth, topk, draw(st.sampled_from(["likeliest", "coupled"])))


@st.composite
def requests(draw: st.DrawFn) -> dict:
    """Left-padded prompts with a seed and sampling parameters each, and processors for all of them."""
    batch = draw(st.integers(1, 4))
    lengths = [draw(st.integers(1, 12)) for _ in range(batch)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    input_ids = torch.randint(3, VOCAB, (batch, max(lengths)), generator=generator)
    attention_mask = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
    several = {
        "temperature": st.sampled_from([0.0, 1e-6, 0.3, 0.7, 1.0, 1.5, 100.0]),
        "top_k": st.sampled_from([0, 1, 2, 10, 1000]),
        "top_p": st.sampled_from([0.0, 0.3, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        "seed": st.integers(-(2**63), 2**63 - 1),
    }
    values = {name: [draw(value) for _ in range(batch)] for name, value in several.items()}
    processors = draw(st.sampled_from([{}, {}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}]))
    inputs = {"input_ids": input_ids.where(attention_mask, PAD), "attention_mask": attention_mask.long()}
    return inputs | values | processors


def check_drafting_changes_nothing(kind: str, tree: TreeConfig, draft_vocab: int, accuracy: float | None, asked: dict):
    """accuracy: of scripted random trees instead of a head's"""
    target = target_of(kind)
    decoder = eagle_decoder(target, tree, draft_vocab=draft_vocab)
    length = {"max_new_tokens": 20, "eos_token_id": None}
    plain = decoder.generate(**asked, **length, speculate=False)
    if accuracy is not None:
        padding = (asked["attention_mask"] == 0).sum(1).tolist()
        texts = [row[start:].tolist() for row, start in zip(plain, padding, strict=True)]
        decoder = SpeculativeDecoder(target, ScriptedDraft(texts, accuracy, tree.num_nodes, draft_vocab))
    assert torch.equal(decoder.generate(**asked, **length), plain)


search = given(
    kind=st.sampled_from(["llama", "qwen3"]),
    tree=trees(),
    draft_vocab=st.sampled_from([7, 60, VOCAB]),
    accuracy=st.sampled_from([None, None, 0.3, 0.9]),
    asked=requests(),
)


@QUICK
@search
def test_no_counterexample(kind, tree, draft_vocab, accuracy, asked):
    check_drafting_changes_nothing(kind, tree, draft_vocab, accuracy, asked)


@pytest.mark.slow
def test_no_counterexample_in_ten_minutes():
    found = LONG(search(check_drafting_changes_nothing))
    start, examples = time.monotonic(), 0
    while time.monotonic() - start < 600:
        found()
        examples += LONG.max_examples
    print(f"{examples} examples")
