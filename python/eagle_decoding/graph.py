"""Rounds as replays of a captured one: a CUDA graph that the host launches ahead and hears from through a ring."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from math import inf

import torch
from torch import Tensor
from transformers import PreTrainedModel

import eagle_kernels
from eagle_decoding.drafts import Commit, Draft
from eagle_decoding.output import Output
from eagle_decoding.ring import Ring
from eagle_decoding.rounds import Outcome, Phase, State, receive, untimed
from eagle_decoding.sampling import NodeSampler
from eagle_decoding.stats import Stats

AHEAD = 2  # rounds handed to the device before the first of them is read
BUCKET = 1024  # rows: caches of captured rounds hold a multiple of these

Step = Callable[[], object]
Capture = Callable[[Step, torch.device], Step]  # from a step to what repeats it on the same memory; runs nothing itself

log = logging.getLogger(__name__)


def cuda_graph(step: Step, device: torch.device) -> Step:
    """Captures a step on a device as a CUDA graph and returns its replay. Raises RuntimeError where it cannot."""
    graph = torch.cuda.CUDAGraph()
    try:
        with capturing(graph, device):
            step()
    except RuntimeError:
        # Some releases of torch take the generator for captured until a capture succeeds (pytorch PR 176752).
        with capturing(torch.cuda.CUDAGraph(), device):
            torch.zeros(1, device=device)
        raise
    return graph.replay


@contextmanager
def capturing(graph: torch.cuda.CUDAGraph, device: torch.device) -> Iterator[None]:
    pool = torch.cuda.graph_pool_handle()
    try:
        with (
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream()),  # a capture that failed would leave its own stream current
            torch.cuda.graph(graph, pool, capture_stream(device), capture_error_mode="thread_local"),
        ):
            yield
    except RuntimeError:
        # torch 2.11 does not end a capture that the runtime refuses for its allocator, which then never frees again.
        with suppress(RuntimeError):  # it has ended: the step itself failed
            torch._C._cuda_endAllocateToPool(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)
        raise


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for each device: torch's own default is on whichever device was captured first."""
    return torch.cuda.Stream(device)


CAPTURES: dict[str, Capture] = {"cuda": cuda_graph}  # by type of device


def capture_for(model: PreTrainedModel, draft: Draft, sampler: NodeSampler) -> Capture | None:
    """How rounds are captured, or None, with one logged sentence, where the host takes part in them."""
    devices = {weight.device for weight in model.parameters()}
    if len(devices) > 1:
        obstacle = f"the target is spread over {', '.join(sorted(map(str, devices)))}"
    elif model.device.type not in CAPTURES:
        obstacle = f"the target is on the {model.device.type}"
    elif not getattr(draft, "on_device", False):
        obstacle = f"{type(draft).__name__} works on the host"
    elif sampler.processors or sampler.record:
        obstacle = "logits processors and recorded scores need every token on the host"
    elif eagle_kernels.backend_in_use() == "reference":
        obstacle = "reference ops look at values on the host"
    else:
        return CAPTURES[model.device.type]
    log.info("Rounds run one by one instead of as a graph: %s.", obstacle)
    return None


def replay_rounds(rounds: "StaticRounds", output: Output, stats: Stats) -> None:
    """Runs rounds that have begun until the output is done, AHEAD of them under way before the host looks at the first.

    The host learns late that a text has ended; what later rounds emitted is dropped, so the text is the same.
    """
    try:
        while not output.done:
            rounds.launch(min(AHEAD, output.most_rounds_left))
            with stats.phase("wait"):
                emitted, accepted = rounds.next()
            with stats.phase("output"):
                receive(emitted, accepted, output, stats)
    finally:
        rounds.drain()
    stats.last_round = rounds.outcome.verified


class StaticRounds:
    """Rounds over buffers that never move, numbered from 0. One object serves call after call of the same kind.

    A call's first round takes in the prompt and runs by itself, as does the first round with more cache rows (a
    bucket): it makes room, compiles and warms up what the capture of the next one needs.

    bound: cache rows a request may have before a round; the captured kernels know no other length of the context
    reach: rows that no text of the call needs more of, where its length is limited

    Nothing that is kept here leads back here: the memory is free as soon as the object is dropped.
    """

    ring: Ring
    state: State  # the captured round's own copy
    outcome: Outcome  # of the round that was handed out last
    replayed: Outcome  # of every replay: it lies where the capture put it
    committed: int  # rows a request has at most before the oldest round that was not read yet

    def __init__(self, capture: Capture):
        self.capture: Capture | None = capture  # None once a capture has failed
        self.launched = self.seen = 0
        self.reach = inf
        self.forget()

    def forget(self) -> None:
        """Drops what was captured: its memory is about to go."""
        self.bound = 0
        self.replay: Step | None = None

    def begin(self, run: Callable[[State], Outcome], state: State, phase: Phase = untimed) -> None:
        """Runs a call's first round by itself; what was captured before goes on from there."""
        self.run, self.phase = run, phase
        self.outcome = run(state)
        if self.launched == 0:
            self.state = copied(self.outcome.state)
            batch, width = self.outcome.emitted.shape
            self.ring = Ring(batch, width, self.outcome.emitted.device)
        else:
            overwrite(self.state, self.outcome.state)
        self.ring.write(self.outcome.emitted, self.outcome.verified.accept_length)
        self.launched += 1
        self.committed = state.commit.committed

    def step(self) -> None:
        """One round from `state` to `state`: what is captured."""
        self.outcome = self.run(self.state)
        overwrite(self.state, self.outcome.state)
        self.ring.write(self.outcome.emitted, self.outcome.verified.accept_length)

    def launch(self, rounds: float) -> None:
        """Hands rounds to the device until `rounds` are under way, or until a larger bucket needs their result."""
        while self.launched - self.seen < rounds:
            rows = self.committed + (self.launched - self.seen) * self.ring.width
            if rows <= self.bound:
                if self.replay is None and self.capture is not None:
                    with self.phase("capture"):
                        self.replay = self.captured(self.capture)
                with self.phase("launch"):
                    self.repeat()
            elif self.launched == self.seen:
                with self.phase("launch"):
                    self.enter_bucket(rows)
            else:
                return
            self.launched += 1

    def next(self) -> tuple[list[list[int]], list[int]]:
        """Tokens and acceptance lengths of the oldest round that was not read yet."""
        emitted, accepted = self.ring.read(self.seen)
        self.seen += 1
        self.committed += max(accepted) + 1
        return emitted, accepted

    def bucket(self, rows: int) -> int:
        """Room for at least `rows` rows, so much that buckets stay few, but no more than the call's text can need."""
        bound = max(BUCKET, self.bound)
        while bound < rows:
            bound *= 2
        reach = -(-self.reach // BUCKET) * BUCKET
        return int(min(bound, reach)) if rows <= reach else bound

    def enter_bucket(self, rows: int) -> None:
        """Runs a round with room for at least `rows` rows; the next one will be captured anew."""
        self.replay, self.bound = None, self.bucket(rows)
        self.state = self.state._replace(commit=self.state.commit._replace(committed=self.bound))
        self.step()

    def captured(self, capture: Capture) -> Step | None:
        """A step's replay, or None, with one logged sentence, where the capture failed."""
        try:
            replay = capture(self.step, self.ring.slots.device)
        except RuntimeError as error:
            cause = str(error.__context__ or error).partition("\n")[0]
            log.warning("Rounds run one by one instead of as a graph: the capture failed (%s).", cause)
            self.capture = None
            return None
        self.replayed = self.outcome
        return replay

    def repeat(self) -> None:
        """A round in the bucket that was entered last: a replay, or a step by itself where the capture failed."""
        if self.replay is None:
            self.step()
        else:
            self.replay()
            self.outcome = self.replayed

    def drain(self) -> None:
        """Waits for the rounds under way: they write into memory of this object."""
        if self.launched > self.seen:
            self.ring.read(self.launched - 1)
            self.seen = self.launched


def tensors(state: State) -> list[Tensor]:
    """The commit's first: its context_len may be the very buffer that holds the state's, which is overwritten last."""
    return [value for value in (*state.commit, state.next_tokens, state.context_len) if isinstance(value, Tensor)]


def copied(state: State) -> State:
    """The same state in memory of its own."""
    commit = Commit._make(value.clone() if isinstance(value, Tensor) else value for value in state.commit)
    return State(commit, state.next_tokens.clone(), state.context_len.clone())


def overwrite(state: State, following: State) -> None:
    """Copies a state's tensors into those of another."""
    for buffer, value in zip(tensors(state), tensors(following), strict=True):
        buffer.copy_(value)
