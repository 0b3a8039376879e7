"""Captured rounds kept from call to call: replayed where a call is of the same kind, captured anew where it is not."""

import gc
import weakref
from typing import Any

import pytest
import torch
from captures import DECODERS, GREEDY, SAMPLED
from models import VOCAB, tiny_target
from torch import Tensor

from eagle_decoding import SpeculativeDecoder, TypicalAcceptance, cache, graph, loop, target
from eagle_decoding.cache import TreeCache
from eagle_decoding.rounds import State
from eagle_kernels import use_backend

OTHER_VALUES = SAMPLED | {"temperature": 0.6, "top_k": 25, "top_p": 0.8, "seed": 11}


class Twins:
    """Two equal decoders with one target: the first keeps what it captures, the second runs rounds one by one."""

    def __init__(self, name: str, device: str):
        self.target = tiny_target().to(device)
        self.kept, self.eager = (self.make(name) for _ in range(2))
        self.eager.graph = False

    def make(self, name: str) -> SpeculativeDecoder:
        torch.manual_seed(5)
        return DECODERS[name](self.target)

    def agree(
        self,
        prompt_seed: int,
        batch: int = 2,
        length: int = 9,
        fused: bool | None = None,
        backend: str | None = None,
        **settings: Any,
    ) -> Tensor:
        """The text of a prompt, which both decoders must give, in as many rounds."""
        prompt = torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(prompt_seed))
        settings = {"max_new_tokens": 20, "eos_token_id": None} | settings
        self.kept.fused = self.eager.fused = fused
        with use_backend(backend):
            texts = [d.generate(prompt.to(self.target.device), **settings) for d in (self.kept, self.eager)]
        assert torch.equal(*texts)
        assert self.kept.stats.rounds == self.eager.stats.rounds
        assert self.kept.stats.accepted_by_depth == self.eager.stats.accepted_by_depth
        return texts[0]


@pytest.mark.parametrize("name", DECODERS)
def test_calls_of_one_kind_share_what_the_first_captured(device, captures, name):
    """With whole layers, whose weights move at the first call."""
    twins = Twins(name, device)
    first = twins.agree(1, fused=True, **SAMPLED)
    made, replays = captures.made, captures.replays
    assert not torch.equal(
        twins.agree(2, length=7, fused=True, **OTHER_VALUES), first
    )  # other prompts, seed and filters
    assert torch.equal(twins.agree(1, fused=True, **SAMPLED), first)
    assert captures.made == made and captures.replays > replays


def test_the_last_round_is_the_call_s_own(device, captures):
    twins = Twins("eagle3-tree", device)
    twins.agree(1, batch=1, **GREEDY)
    for seed in (2, 3):
        twins.agree(seed, batch=1, **GREEDY)
        rounds = [d.stats.last_round for d in (twins.kept, twins.eager)]
        assert torch.equal(*(r.tree.draft_tokens for r in rounds))
        assert torch.equal(*(r.accept_index for r in rounds))


@pytest.mark.parametrize(
    "between",
    [
        {"batch": 3},
        {"do_sample": False},
        SAMPLED | {"top_k": 0, "top_p": 1.0},
        {"typical_acceptance": TypicalAcceptance(), **SAMPLED},
        {"repetition_penalty": 1.2},  # runs on the host
        {"fused": False, **SAMPLED},
        {"backend": "cpp", **SAMPLED},  # by its name
    ],
    ids=["batch", "greedy", "unfiltered", "typical", "eager", "fused", "backend"],
)
def test_a_call_of_another_kind_ends_it(device, captures, between):
    twins = Twins("eagle3-tree", device)
    first = twins.agree(1, **SAMPLED)
    made = captures.made
    twins.agree(2, **between)
    assert torch.equal(twins.agree(1, **SAMPLED), first)
    assert captures.made > made


def test_a_longer_prompt_is_captured_anew(device, captures):
    twins = Twins("eagle3-tree", device)
    twins.agree(1, **SAMPLED)
    made = captures.made
    twins.agree(2, length=100, **SAMPLED)
    assert captures.made > made
    made = captures.made
    twins.agree(3, length=60, **SAMPLED)
    assert captures.made == made


def test_plain_and_speculative_calls_take_turns(device, captures):
    twins = Twins("eagle3-tree", device)
    for speculate in (True, False):
        twins.agree(1, **SAMPLED, speculate=speculate)
    made = captures.made
    texts = [twins.agree(2, **OTHER_VALUES, speculate=speculate) for speculate in (True, False)]
    assert torch.equal(*texts) and captures.made == made


def test_weights_may_change_in_place_but_not_move(device, captures):
    twins = Twins("eagle3-tree", device)
    weight = twins.target.model.layers[1].mlp.down_proj.weight
    before = twins.agree(1, **GREEDY)
    made = captures.made
    weight.data.mul_(-1)
    changed = twins.agree(1, **GREEDY)
    assert not torch.equal(changed, before) and captures.made == made
    weight.data = -weight.data.clone()  # elsewhere
    assert torch.equal(twins.agree(1, **GREEDY), before) and captures.made > made


def test_a_hook_that_comes_later_is_not_missed(device, captures):
    twins = Twins("eagle3-tree", device)
    before = twins.agree(1, **GREEDY)
    hook = twins.target.lm_head.register_forward_hook(lambda module, args, logits: -logits)
    assert not torch.equal(twins.agree(1, **GREEDY), before)
    hook.remove()
    assert torch.equal(twins.agree(1, **GREEDY), before)


def test_two_decoders_may_share_a_draft(device, captures):
    twins = Twins("eagle3-tree", device)
    other = SpeculativeDecoder(twins.target, twins.kept.draft)
    for seed, batch in ((1, 2), (2, 3), (3, 2)):
        twins.agree(seed, **SAMPLED)
        other.generate(torch.full((batch, 5), 7, device=device), max_new_tokens=9, eos_token_id=None, **SAMPLED)


def test_a_call_that_fails_leaves_nothing_behind(device, captures):
    twins = Twins("eagle3-tree", device)
    before = twins.agree(1, **GREEDY)
    hook = twins.target.lm_head.register_forward_hook(lambda module, args, logits: logits * torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        twins.agree(1, **GREEDY)
    assert twins.kept.memories == {}
    hook.remove()
    assert torch.equal(twins.agree(1, **GREEDY), before)


@pytest.fixture
def no_collector():
    """What is freed is freed because nothing refers to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watched(TreeCache):
    """Notes how many rows there were room for, each time that there was more."""

    capacities: list[int]

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.capacities[-1:] != [self.buffer.capacity]:
            self.capacities.append(self.buffer.capacity)
        return super().update(*args, **kwargs)


@pytest.mark.parametrize(
    "length, rows, longer",
    [(20, 256 + 128, []), (140, 416 + 128, [480 + 128])],
    ids=["a bucket", "what the text can need"],
)
def test_a_prompt_s_cache_is_never_copied(device, captures, monkeypatch, length, rows, longer):
    """Room for the first bucket and a tree is made before the prompt, anew where a later prompt needs more."""
    monkeypatch.setattr(cache, "GRANULE", 16)
    monkeypatch.setattr(target, "TreeCache", Watched)
    Watched.capacities = []
    twins = Twins("eagle3-tree", device)
    twins.eager = twins.kept
    twins.agree(1, length=length, max_new_tokens=9, **GREEDY)
    assert Watched.capacities == [rows]
    twins.agree(2, length=length + 60, max_new_tokens=9, **GREEDY)
    assert Watched.capacities == [rows, *longer]


def test_a_long_cache_grows_by_little_more_than_is_asked_for():
    buffer = cache.KvBuffer(1, 1, 1, 8, torch.float32, torch.device("cpu"))
    capacities = []
    for rows in (200, 257, 40_000, 40_100):
        buffer.reserve(rows)
        capacities.append(buffer.capacity)
    assert capacities == [256, 384, 40_064, 44_160]
    buffer.clear()
    assert buffer.capacity == buffer.data.untyped_storage().nbytes() == 0


def test_the_prompt_s_features_go_after_the_first_round(device, captures, monkeypatch, no_collector):
    features, alive = [], []

    def watched(*args: Any) -> State:
        state = prefill(*args)
        features.append(weakref.ref(state.commit.features))
        return state

    prefill, following = loop.prefill, graph.StaticRounds.next
    monkeypatch.setattr(loop, "prefill", watched)
    monkeypatch.setattr(graph.StaticRounds, "next", lambda self: (alive.append(features[0]()), following(self))[1])
    Twins("eagle3-tree", device).kept.generate(torch.full((2, 9), 7, device=device), max_new_tokens=9, **GREEDY)
    assert set(alive) == {None}


@pytest.mark.parametrize("fails", [False, True], ids=["captured", "failed"])
def test_what_was_captured_goes_without_the_garbage_collector(device, captures, monkeypatch, no_collector, fails):
    """The cache and the graph of a kind of call are not in the next kind's way; nor is a step that could not be."""
    steps = []

    def broken_off(step: graph.Step, device: torch.device) -> graph.Step:
        local = torch.ones(1, device=device)
        steps.append(weakref.ref(local))
        step()
        raise RuntimeError("in the middle of a step")

    if fails:
        monkeypatch.setitem(graph.CAPTURES, device, broken_off)
    decoder = DECODERS["eagle3-tree"](tiny_target().to(device))
    prompt = torch.full((2, 9), 7, device=device)
    decoder.generate(prompt, max_new_tokens=9, eos_token_id=None, **GREEDY)
    memory = decoder.memories[True]
    kept = [weakref.ref(o) for o in (memory, memory.rounds, memory.cache, memory.rounds.ring)] + steps
    del memory
    decoder.generate(prompt, max_new_tokens=9, eos_token_id=None, **SAMPLED)
    assert len(steps) == 2 * fails
    assert [ref() for ref in kept] == [None] * len(kept)


def test_the_last_round_is_the_call_s_own_where_captures_fail(device, captures, monkeypatch):
    """Also in the buckets after the one in which the capture failed."""

    def failing(step: graph.Step, device: torch.device) -> graph.Step:
        raise RuntimeError("no")

    monkeypatch.setitem(graph.CAPTURES, device, failing)
    twins = Twins("eagle3-tree", device)
    twins.agree(1, batch=1, max_new_tokens=60, **GREEDY)
    rounds = [d.stats.last_round for d in (twins.kept, twins.eager)]
    assert torch.equal(*(r.tree.draft_tokens for r in rounds))
