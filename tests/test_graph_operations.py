"""What a captured round may do: the rules themselves, and a round on a device that has no values."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import eagle_draft, tiny_target
from tape import Capturable, HostReadError, NoHostReads, Tape, tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eagle_decoding import TreeConfig
from eagle_decoding.drafts import Commit, NoDraft
from eagle_decoding.drafts.coupled import Coupling
from eagle_decoding.drafts.layer_draft import LayerDraft
from eagle_decoding.output import Output
from eagle_decoding.rounds import State, one_round
from eagle_decoding.sampling import NodeSampler, SamplingParams
from eagle_decoding.target import Target

BREACHES: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "tolist": lambda x: x.tolist(),
    "bool": lambda x: bool((x > 0).any()),
    "int": lambda x: int(x[0]),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: (x > 0).nonzero(),
    "masked select": lambda x: x[x > 0],
    "masked write": lambda x: x.index_put_((x > 0,), torch.zeros(())),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "equal": lambda x: torch.equal(x, x + 1),
    "upload": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "noise": lambda x: torch.rand(3),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_rules_are_enforced(breach):
    values = torch.tensor([1.0, 0.0, 2.0])
    with pytest.raises(HostReadError):
        Tape(lambda: BREACHES[breach](values))


def test_a_tape_repeats_without_python_on_the_same_memory():
    count, total, python_runs = torch.zeros(2), torch.zeros(2), []

    def step() -> None:
        python_runs.append(len(python_runs))
        count.add_(1)
        total.copy_(total + count.view(2, 1).flatten() * len(python_runs))

    tape = Tape(step)
    assert count.tolist() == total.tolist() == [0, 0]
    for _ in range(3):
        tape.replay()
    assert count.tolist() == [3, 3] and total.tolist() == [6, 6] and python_runs == [0]


def state_of(batch: int, width: int, features: int) -> State:
    def integers(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.int32)

    commit = Commit(
        integers(batch, width), torch.zeros(batch, width, features), integers(batch, width), integers(batch),
        integers(batch), committed=64,
    )  # fmt: skip
    return State(commit, integers(batch), integers(batch))


class SampledRequests(NodeSampler):
    """Temperature and every filter, no processors."""

    def __init__(self, batch: int):
        ones = torch.ones(batch)
        self.params = SamplingParams(ones.long(), ones, ones.int(), ones, ones)
        self.typical_acceptance, self.record, self.processors, self.in_step = None, False, [], False


def begin(draft: LayerDraft, params: SamplingParams) -> None:
    """What `start` does, without looking at the values of the parameters."""
    draft.params, draft.drawn, draft.chooser = params, draft.tree.drawn, None
    draft.rule, draft.coupling = torch.zeros_like(params.seed), None
    if draft.tree.children == "coupled":
        draft.coupling = object.__new__(Coupling)
        values = {"params": params, "vocab_size": draft.vocab_size, "d2t": None, "target_ids": None, "filtered": True}
        vars(draft.coupling).update(values)
    draft.layer.start(len(params.seed))


@pytest.mark.parametrize("children", ["plain", "likeliest", "coupled", "sampled"])
def test_a_round_on_a_device_never_looks_at_the_host(children):
    """On torch's device without memory, which stands for a GPU: there are no values to read, and a tensor from the host
    would show."""
    batch = 2
    with torch.inference_mode():
        with torch.device("meta"):
            model, sampler, draft = tiny_target(), SampledRequests(batch), NoDraft()
            if children != "plain":
                draft = eagle_draft(model, TreeConfig(12, 3, 3, children))
                begin(draft, sampler.params)
            width = 1 if children == "plain" else 4
            state, output = state_of(batch, width, 32 * len(draft.feature_layers)), object.__new__(Output)
        target = Target(model, draft.feature_layers, fused=None)
        cache = target.new_cache(batch)
        with target.attached():
            one_round(target, draft, sampler, output, cache, state)  # makes room
            with NoHostReads(), Capturable():
                outcome = one_round(target, draft, sampler, output, cache, state)
    assert outcome.emitted.device.type == "meta" and outcome.emitted.shape == (batch, width)


class Operations(TorchDispatchMode):
    """Counts operations, but those that only show memory in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **kwargs or {})
        given = {t.untyped_storage()._cdata for t in tensors(args)}
        shows = all(t.untyped_storage()._cdata in given for t in tensors(results))
        if func._schema.is_mutable or not shows:
            self.counts[func._schema.name] += 1
        return results


@pytest.mark.parametrize("fused, operations", [(False, 39), (None, 15), (True, 5)])
def test_a_layer_takes_few_operations(fused, operations):
    """A GPU runs a kernel for each, two for attention where ranges of the context are merged; of a whole layer's five
    operations all but the norm are two."""
    counted = Operations()
    with torch.inference_mode():
        with torch.device("meta"):
            model, sampler, draft = tiny_target(dtype=torch.bfloat16), SampledRequests(1), NoDraft()
            state, output = state_of(1, 1, 0), object.__new__(Output)
        layer = model.get_decoder().layers[2]
        layer.register_forward_pre_hook(lambda *args: counted.__enter__() and None)
        layer.register_forward_hook(lambda *args: counted.__exit__(None, None, None))
        target = Target(model, draft.feature_layers, fused=fused)
        with target.attached():
            one_round(target, draft, sampler, output, target.new_cache(1), state)
    assert counted.counts.total() == operations, counted.counts
