"""Whole decodes on the CUDA kernels, without a GPU on emulated ones: the CPU kernels' text, and memory full of NaN."""

from collections.abc import Iterator

import pytest
import torch
from captures import DECODERS, GREEDY, SAMPLED, TREE, texts
from cuda_emulation.plugin import emulated_kernels  # noqa: F401 (used by every test here)
from models import tiny_target
from test_draft_hydra import hydra_heads
from torch import Tensor

import eagle_kernels
from eagle_decoding import SpeculativeDecoder, graph
from eagle_decoding.drafts import HydraDraft

WITH_PREFIX = {
    "hydra++": lambda target: SpeculativeDecoder(target, HydraDraft(hydra_heads(target, 60, prefix=True), target, TREE))
}


@pytest.fixture
def memory_full_of_nan() -> Iterator[None]:
    """What torch hands out without a value is NaN."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def logprobs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Collects what drafts say of their likeliest tokens."""
    collected = []

    def collect(op: str, place: int) -> None:
        plain = getattr(eagle_kernels, op)

        def collecting(*arguments: object, **options: object) -> tuple[Tensor, ...]:
            results = plain(*arguments, **options)
            collected.append(results[place].clone())
            return results

        monkeypatch.setattr(eagle_kernels, op, collecting)

    collect("lm_head_topk", 1)
    collect("topk_logprobs", 0)
    return collected


@pytest.mark.parametrize(
    ("name", "batch"),
    [("eagle3-chain", 1), ("eagle3-tree", 3), ("hydra++", 1), ("eagle1", 3), ("small-model", 3)],
)
def test_memory_that_nobody_wrote_is_not_read(device, monkeypatch, memory_full_of_nan, logprobs, name, batch):
    if device == "cpu":
        monkeypatch.setitem(graph.CAPTURES, device, lambda step, device: step)
    decoder = (DECODERS | WITH_PREFIX)[name](tiny_target(dtype=torch.bfloat16).to(device))
    texts(decoder, batch, True, **GREEDY, max_new_tokens=6)
    assert logprobs and all(values.isfinite().all() for values in logprobs)


@pytest.mark.parametrize("name, settings", [("eagle3-tree", GREEDY), ("eagle3-sampled", SAMPLED)])
def test_same_text_in_as_many_rounds_as_on_the_cpu(device, name, settings):
    settings = settings | {"max_new_tokens": 6}
    with eagle_kernels.use_backend("cpp"):
        expected, rounds = texts(DECODERS[name](tiny_target()), 1, False, **settings)
    text, rounds_here = texts(DECODERS[name](tiny_target().to(device)), 1, False, **settings)
    assert torch.equal(text.cpu(), expected)
    assert rounds_here == rounds
