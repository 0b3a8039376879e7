"""What a benchmark states about an op, once: its arguments, what they ask of the machine, and torch's own way."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

import eagle_kernels
from bench.shapes import SHORT_MODELS, sizes
from eagle_decoding.numerics.cases import FP8_WEIGHTS, Maker, Sizes, with_fp8_weights

Call = Callable[[], object]
OPS: dict[str, "OpBenchmark"] = {}  # filled by importing the bench_<op> modules
WIDE_AND_FP8: dict[str, dict[str, Any]] = {"": {}, "fp8": {"fp8": True}}  # variants of a case that `also_in_fp8` made


@dataclass(frozen=True)
class Case:
    """One call of an op.

    arguments: what the op takes, in order; in_torch takes the same
    bytes:     that have to move: what is read and what is written, each once
    flops:     additions and multiplications that the definition asks for
    in_torch:  what a user of torch would write; it need not give the same bits
    scales:    of fp8 weights, which both take by name
    """

    arguments: tuple[Any, ...]
    bytes: int
    flops: int
    in_torch: Callable[..., Any]
    scales: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class OpBenchmark:
    """The cases of an op.

    make_case:   (Sizes, Maker, **options of a variant) -> Case
    varies_with: the sizes of a workload that the case depends on, besides the model's
    variants:    keyword arguments of make_case by name
    """

    op: str
    make_case: Callable[..., Case]
    varies_with: tuple[str, ...]
    variants: Mapping[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})

    def case(self, variant: str, s: Sizes, make: Maker) -> Case:
        torch.manual_seed(0)
        return self.make_case(s, make, **self.variants[variant])

    def rivals(self, case: Case, device: str) -> Iterator[tuple[str, Call]]:
        """Every way to compute the case on the device: each backend, plain torch, compiled torch."""
        for backend in eagle_kernels.BACKENDS:
            interpreted = backend == "triton" and device == "cpu"
            if not interpreted and eagle_kernels.can_run(self.op, device, backend):
                function = partial(getattr(eagle_kernels, self.op), backend=backend)
                yield backend, partial(function, *case.arguments, **case.scales)
        yield "torch", partial(case.in_torch, *case.arguments, **case.scales)
        yield "compiled", partial(compiled(case.in_torch), *case.arguments, **case.scales)


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile with one specialisation for every shape it meets."""
    torch._dynamo.config.recompile_limit = 256
    return torch.compile(function, dynamic=False)


def op_benchmark(
    op: str,
    make_case: Callable[..., Case],
    varies_with: tuple[str, ...],
    variants: Mapping[str, dict[str, Any]] | None = None,
) -> Callable[..., None]:
    """Registers an op for `python -m bench`; returns its pytest-benchmark function: every backend beside torch."""
    described = OpBenchmark(op, make_case, varies_with, variants or {"": {}})
    OPS[op] = described

    @pytest.mark.parametrize("variant", described.variants)
    @pytest.mark.parametrize("model", SHORT_MODELS)
    @pytest.mark.parametrize("rival", ["cpp", "reference", "torch"])
    def bench_op(benchmark: Any, rival: str, model: str, variant: str) -> None:
        case = described.case(variant, sizes(model), Maker(torch.bfloat16, "cpu"))
        benchmark.extra_info |= {"bytes": case.bytes, "flops": case.flops}
        benchmark(dict(described.rivals(case, "cpu"))[rival])

    return bench_op


def also_in_fp8(op: str, make_case: Callable[..., Case]) -> Callable[..., Case]:
    """The same cases, and with fp8=True the same with fp8 weights, which torch turns back into the inputs' dtype."""

    def make(s: Sizes, make: Maker, fp8: bool = False, **options: Any) -> Case:
        wide = make_case(s, make, **options)
        if not fp8:
            return wide
        arguments, scales = with_fp8_weights(op, wide.arguments)
        weights = FP8_WEIGHTS[op]

        def in_torch(*given: Any, **scales: Tensor) -> Any:
            widened = list(given)
            for place, name in weights.items():
                widened[place] = (given[place].to(torch.float32) * scales[name][:, None]).to(given[0].dtype)
            return wide.in_torch(*widened)

        saved = nbytes(*(wide.arguments[place] for place in weights)) - nbytes(*(arguments[place] for place in weights))
        bytes_read = wide.bytes - saved + nbytes(*scales.values())
        return replace(wide, arguments=arguments, bytes=bytes_read, in_torch=in_torch, scales=scales)

    return make


def nbytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)
