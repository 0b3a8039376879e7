"""Times the kernels of a decoding round on a GPU against the floor of their bytes and operations, and beside torch.

python -m bench.gpu_kernels --out FILE [--model Llama-3.1-8B] [--contexts 1024,8192,65536] [--device cuda]
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench import command
from bench.__main__ import numbers
from bench.gpu.after_logits import add_compaction, add_rejection, add_sample_and_walk
from bench.gpu.attention import TREE, add_attention
from bench.gpu.draft import add_draft_forward
from bench.gpu.kernel_names import KernelNames
from bench.gpu.products import add_products
from bench.gpu.rows import Rows
from bench.machine import gpu_state, machine
from bench.results_file import write_json
from bench.shapes import sizes
from bench.timing import Stopwatch
from eagle_decoding.floor.ceilings import measure_ceilings
from eagle_decoding.numerics.cases import Sizes

CHAIN, PLAIN = 6, 1  # nodes
LEVEL = 10  # rows of a draft forward: the children looked at per node


@torch.inference_mode()
def main(
    out: Annotated[Path, typer.Option(help="JSON file; it grows with every group of rows.")],
    model: str = "Llama-3.1-8B",
    contexts: Annotated[str, typer.Option(help="Committed rows of attention, a list.")] = "1024,8192,65536",
    batches: Annotated[str, typer.Option(help="Requests of attention over a tree, a list.")] = "1,8",
    device: str = "cuda",
) -> None:
    torch.manual_seed(0)
    facts = machine(device)
    rows = Rows(Stopwatch(device), measure_ceilings(torch.bfloat16, device))
    result = {"machine": facts, "ceilings": asdict(rows.ceilings), "kernels": rows.rows}
    timed = []
    for add in groups(sizes(model, num_nodes=TREE), numbers(contexts), numbers(batches)):
        if succeeds(add, rows):
            timed.append(add)
        write_json(result, out)
    if device == "cuda":
        result["gpu_state_after"] = gpu_state()
        write_json(result, out)
    for add in reversed(timed):  # attention over trees first: a claim is about its kernels
        succeeds(add, KernelNames(rows))
        write_json(result, out)
    if any("error" in row for row in rows.rows):
        raise typer.Exit(1)


def succeeds(add: Callable[[Rows], None], rows: Rows) -> bool:
    """Whether a group could be measured; the others are in any case, and the exit status tells."""
    try:
        add(rows)
    except Exception as error:
        rows.failed(error)
        return False
    return True


def groups(of_model: Sizes, contexts: list[int], batches: list[int]) -> Iterator[Callable[[Rows], None]]:
    """What is measured: first what takes little time, at the end attention over trees, whose rivals compile."""
    yield partial(add_draft_forward, sizes=of_model)
    for settings in ("top-k, top-p", "greedy"):
        yield partial(add_sample_and_walk, sizes=of_model, settings=settings)
    for settings in ("top-k, top-p", "temperature"):
        yield partial(add_rejection, sizes=of_model, settings=settings)
    yield partial(add_compaction, sizes=of_model)
    for num_rows in (PLAIN, LEVEL, TREE):
        yield partial(add_products, sizes=of_model, num_rows=num_rows)
    for context in contexts:
        for nodes in (PLAIN, CHAIN):
            yield partial(add_attention, sizes=replace(of_model, context_len=context, num_nodes=nodes))
    for context in contexts:
        for batch in batches:
            yield partial(add_attention, sizes=replace(of_model, batch=batch, context_len=context))


if __name__ == "__main__":
    command.run(main)
