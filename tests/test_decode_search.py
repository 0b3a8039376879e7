"""A search for counterexamples: trees, batches, seeds and parameters for which drafting would change the text."""

import time
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import PAD, VOCAB, ScriptedDraft, eagle_decoder, tiny_target
from test_decode_generate import StopWhenUnsure
from test_decode_processors import Grammar

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
    ends = {"eos_token_id": draw(st.sampled_from([None, list(range(3, 9))])), "pad_token_id": PAD}
    return inputs | values | processors | ends


def reading_scores(asked: dict) -> dict:
    """The same with the first request's parameters for all: scores go with one value of each."""
    first = {name: asked[name][0] for name in ("temperature", "top_k", "top_p", "min_p")}
    sampling = {"do_sample": True, **first} if first["temperature"] else {"do_sample": False}
    rest = {name: value for name, value in asked.items() if name not in first}
    return rest | sampling | {"return_dict_in_generate": True, "output_scores": True}


def check_drafting_changes_nothing(
    kind: str,
    tree: TreeConfig,
    draft_vocab: int,
    accuracy: float | None,
    asked: dict,
    stateful: bool,
    bar: float | None,
):
    """accuracy: of scripted random trees instead of those of a head; stateful: with a processor that keeps state

    bar: of a stopping criterion that reads scores
    """
    target = target_of(kind)
    decoder = eagle_decoder(target, tree, draft_vocab=draft_vocab)
    settings = {"max_new_tokens": 20, **(asked if bar is None else reading_scores(asked))}

    def text(speculate: bool) -> torch.Tensor:
        processors = {"logits_processor": [Grammar()]} if stateful else {}
        criteria = {} if bar is None else {"stopping_criteria": [StopWhenUnsure(bar)]}
        result = decoder.generate(**settings, **processors, **criteria, speculate=speculate)
        return result if bar is None else result.sequences

    plain = text(speculate=False)
    if accuracy is not None:
        padding = (asked["attention_mask"] == 0).sum(1).tolist()
        texts = [row[start:].tolist() for row, start in zip(plain, padding, strict=True)]
        decoder = SpeculativeDecoder(target, ScriptedDraft(texts, accuracy, tree.num_nodes, draft_vocab))
    assert torch.equal(text(speculate=True), plain)


search = given(
    kind=st.sampled_from(["llama", "qwen3"]),
    tree=trees(),
    draft_vocab=st.sampled_from([7, 60, VOCAB]),
    accuracy=st.sampled_from([None, None, 0.3, 0.9]),
    asked=requests(),
    stateful=st.sampled_from([False, False, True]),
    bar=st.sampled_from([None, None, 0.05, 0.2]),
)


@QUICK
@search
def test_no_counterexample(**example):
    check_drafting_changes_nothing(**example)


@pytest.mark.slow
def test_no_counterexample_in_ten_minutes():
    found = LONG(search(check_drafting_changes_nothing))
    start, examples = time.monotonic(), 0
    while time.monotonic() - start < 600:
        found()
        examples += LONG.max_examples
    print(f"{examples} examples")
