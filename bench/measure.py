"""Times the chosen ops on the chosen shapes, in passes over everything, and keeps every sample."""

import gc
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

import eagle_kernels
from bench.case import OPS, OpBenchmark
from bench.machine import machine
from bench.shapes import sizes
from bench.timing import Call, Samples, Stopwatch, sample_in_turns
from eagle_decoding.floor.ceilings import measure_ceilings
from eagle_decoding.numerics.cases import Maker, Sizes

NAMES = {
    "batch": "batch",
    "context_len": "context",
    "num_nodes": "nodes",
    "max_depth": "depth",
    "topk": "topk",
}  # of sizes, in labels


@dataclass(frozen=True)
class Plan:
    """What to time: all combinations of models, batches, contexts and trees, once per distinct case of an op.

    without: rivals that are left out
    passes:  times through everything; a pass samples each rival `repeats` times
    """

    ops: Sequence[str]
    models: Sequence[str]
    batches: Sequence[int]
    contexts: Sequence[int]
    nodes: Sequence[int]
    threads: Sequence[int]
    dtype: str = "bfloat16"
    device: str = "cpu"
    without: Sequence[str] = ()
    passes: int = 3
    repeats: int = 5


@dataclass
class Row:
    """One op on one case with one number of threads: the samples of each rival in seconds."""

    op: str
    case: str
    model: str
    threads: int
    bytes: int
    flops: int
    samples: dict[str, Samples] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.op, self.case, self.threads


def all_ops() -> list[str]:
    """Names of the ops that have a bench_<op>.py; importing one registers its cases."""
    for path in Path(__file__).parent.glob("bench_*.py"):
        if path.stem.removeprefix("bench_") in eagle_kernels.__all__:
            importlib.import_module(f"bench.{path.stem}")
    return sorted(OPS)


def cases(plan: Plan) -> Iterator[tuple[OpBenchmark, str, Sizes, str, str]]:
    """(benchmark, variant, sizes, model, label) of each distinct case."""
    for op in plan.ops:
        benchmark, seen = OPS[op], set()
        for model, batch, context, nodes in product(plan.models, plan.batches, plan.contexts, plan.nodes):
            s = sizes(model, batch, context, nodes)
            for variant in benchmark.variants:
                varying = ", ".join(f"{NAMES[name]} {getattr(s, name)}" for name in benchmark.varies_with)
                label = ", ".join(part for part in (variant, model, varying) if part)
                if label not in seen:
                    seen.add(label)
                    yield benchmark, variant, s, model, label


def add_samples(row: Row, rivals: dict[str, Call], plan: Plan, watch: Stopwatch) -> None:
    """One pass over a case: samples of all rivals but those the plan leaves out and those that were too slow before."""
    left_out = {*plan.without, *(name for name, taken in row.samples.items() if taken.too_slow)}
    rivals = {name: call for name, call in rivals.items() if name not in left_out}
    if "compiled" in rivals:
        rivals["compiled"]()  # compiles here, before anything is timed
    for name, samples in sample_in_turns(rivals, watch, plan.repeats).items():
        kept = row.samples.setdefault(name, Samples())
        kept.warm += samples.warm
        kept.cold += samples.cold


@torch.inference_mode()
def measure(plan: Plan) -> dict[str, Any]:
    """Runs the plan; returns the machine, its ceilings and the rows as they go into a result file."""
    rows: dict[tuple[str, str, int], Row] = {}
    before, ceilings = torch.get_num_threads(), []
    watch, dtype = Stopwatch(plan.device), getattr(torch, plan.dtype)
    chosen = list(cases(plan))
    with Progress(transient=True) as progress:
        bar = progress.add_task("timing", total=plan.passes * len(plan.threads) * len(chosen))
        for _, threads in product(range(plan.passes), plan.threads):
            torch.set_num_threads(threads)
            ceilings.append(asdict(measure_ceilings(dtype, plan.device)))
            for benchmark, variant, s, model, label in chosen:
                progress.update(bar, description=f"{benchmark.op}, {label}", advance=1)
                case = benchmark.case(variant, s, Maker(dtype, plan.device))
                row = Row(benchmark.op, label, model, threads, case.bytes, case.flops)
                row = rows.setdefault(row.key, row)
                add_samples(row, dict(benchmark.rivals(case, plan.device)), plan, watch)
                del case
                gc.collect()
    torch.set_num_threads(before)
    return {
        "machine": machine(plan.device),
        "plan": asdict(plan),
        "ceilings": ceilings,
        "rows": [asdict(row) for row in rows.values()],
    }
