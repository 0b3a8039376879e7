"""What calls of one kind have in common, kept so that a round captured in one call is replayed in the next."""

from math import inf
from typing import NamedTuple

from transformers import PreTrainedModel

import eagle_kernels
from eagle_decoding.cache import TreeCache
from eagle_decoding.config import MAX_NODES
from eagle_decoding.drafts import Draft
from eagle_decoding.graph import AHEAD, Capture, StaticRounds
from eagle_decoding.sampling import NodeSampler, SamplingParams
from eagle_decoding.typical import TypicalAcceptance


class Kind(NamedTuple):
    """What a captured round holds besides values in tensors: it serves calls that agree on all of this.

    draft:     the very object
    batch:     requests
    sampling:  whether any request samples; filtered: whether any has a top-k, top-p or min-p
    modules:   of each of the target's modules, the forward that was put in its place, and its hooks
    addresses: where the target's weights lie
    """

    draft: Draft
    batch: int
    sampling: bool
    filtered: bool
    typical_acceptance: TypicalAcceptance | None
    fused: bool | None
    backend: str | None
    modules: tuple[tuple[int, ...], ...]
    addresses: tuple[int, ...]


def kind_of(model: PreTrainedModel, draft: Draft, sampler: NodeSampler, fused: bool | None) -> Kind:
    params = sampler.params
    return Kind(
        draft=draft,
        batch=len(params.seed),
        sampling=bool((params.temperature > 0).any()),
        filtered=params.filtered(),
        typical_acceptance=sampler.typical_acceptance,
        fused=fused,
        backend=eagle_kernels.backend_in_use(),
        modules=tuple(
            (id(vars(m).get("forward")), *m._forward_pre_hooks, *m._forward_hooks)  # a hook's key is its alone
            for m in model.modules()
        ),
        addresses=tuple(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())),
    )


class Memory:
    """The tensors that captured rounds work on, from call to call.

    params: how the requests of the call sample; each call writes its own values here
    cache:  the target's
    rounds: what was captured; it also names the round's state and the ring that leads to the host

    The draft keeps its own tensors, for as long as it is started with these params (see `Draft.start`).
    """

    def __init__(self, kind: Kind, capture: Capture, params: SamplingParams, cache: TreeCache):
        self.kind, self.params, self.cache = kind, params, cache
        self.rounds = StaticRounds(capture)

    def serves(self, kind: Kind) -> bool:
        """Whether rounds captured here are those of a call of this kind, and the draft has served no other since."""
        return self.kind == kind and getattr(kind.draft, "params", None) is self.params

    def make_room(self, prompt_rows: int, new_tokens: int | None) -> None:
        """Makes room for a call's prompt and first bucket at once, before both: a long cache is not to be copied.

        new_tokens: most that a request may get. What was captured in less room is dropped, and so is what that held.
        """
        self.rounds.reach = inf if new_tokens is None else prompt_rows + new_tokens + AHEAD * MAX_NODES
        rows = self.rounds.bucket(prompt_rows + MAX_NODES) + MAX_NODES
        if rows > self.cache.buffer.capacity:
            self.rounds.forget()
            self.cache.buffer.clear()
            self.cache.buffer.reserve(rows)

    def adopt(self, sampler: NodeSampler) -> None:
        """Makes a call's sampler sample from here, as it was told to."""
        for name, value in vars(sampler.params).items():
            getattr(self.params, name).copy_(value)
        sampler.params = self.params
