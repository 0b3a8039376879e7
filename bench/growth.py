"""What a round costs as context and batch grow: phases timed on caches filled at random, without a text.

python -m bench.growth TARGET HEAD [--contexts 1024,4096,16384,32768] [--batches 1,2,4,8,16] [--out FILE]

Contexts grow at batch 1, batches at the shortest context. The weights are real; what the caches hold is not, which
costs the same time. Plain rounds (one node) and rounds of a tree take turns.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from rich.table import Table
from torch import Tensor

import eagle_kernels
from bench import command
from bench.arms import parse_tree
from bench.console import console
from bench.machine import machine
from bench.results_file import write_json
from bench.spread import spread
from eagle_decoding import TreeConfig
from eagle_decoding.cache import TreeCache
from eagle_decoding.drafts import Commit, Eagle3Draft, load_draft
from eagle_decoding.sampling import fused_params
from eagle_decoding.target import Target, load_target
from eagle_decoding.tree import root_only

PHASES = ("draft", "verify", "sample", "commit")
COMMITTED = 2  # rows that the head takes in a round


class SyntheticRound:
    """The phases of a round for `batch` requests with `context` committed rows each, as the loop runs them."""

    def __init__(self, target: Target, draft: Eagle3Draft, batch: int, context: int):
        self.target, self.draft, self.batch, self.context = target, draft, batch, context
        rows = context + draft.tree.num_nodes
        self.cache: TreeCache = target.new_cache(batch)
        self.cache.buffer.reserve(rows)
        self.params = fused_params([], False, [7] * batch, draft.device)
        self.context_len = torch.full((batch,), context, dtype=torch.int32, device=draft.device)
        draft.start(torch.zeros(batch, context, dtype=torch.int64), self.context_len, self.params)
        draft.layer.cache.reserve(context + draft.tree.max_depth * draft.tree.topk)
        for buffer in (self.cache.buffer, draft.layer.cache):
            buffer.data[:] = torch.randn(buffer.data.shape[-1])
        self.roots = torch.full((batch,), 5, dtype=torch.int32, device=draft.device)
        self.commit = committed_rows(draft, self.context_len)
        self.seconds: dict[str, float] = {}

    def run(self, speculate: bool) -> dict[str, float]:
        """Seconds by phase of one round; greedy, and whatever is accepted is committed nowhere."""
        self.seconds = {}
        with self.phase("draft"):
            if speculate:
                self.draft.extend(self.commit)
                tree = self.draft.propose(self.roots, self.context_len)
            else:
                tree = root_only(self.roots, self.context_len)
        with self.phase("verify"):
            verified = self.target.verify(tree, self.context_len, self.cache)
        with self.phase("sample"):
            chosen = eagle_kernels.sample_tokens(verified.logits, tree.position_ids + 1, **vars(self.params))
            walk = eagle_kernels.verify_tree(tree.draft_tokens, tree.parent, chosen, tree.max_depth)
        with self.phase("commit"):
            self.cache.compact(walk[0], walk[1], self.context_len)
            eagle_kernels.commit_step(tree.draft_tokens, *walk, verified.features, self.context_len)
        return self.seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.draft.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - start


def committed_rows(draft: Eagle3Draft, context_len: Tensor) -> Commit:
    """What a round of COMMITTED tokens hands to the head, as the last rows of the context."""
    shape = (len(context_len), COMMITTED)
    width = len(draft.feature_layers) * draft.config.target_hidden_size
    before = context_len - COMMITTED
    return Commit(
        tokens=torch.full(shape, 5, dtype=torch.int32, device=draft.device),
        features=torch.randn(*shape, width, device=draft.device).to(draft.dtype),
        position_ids=before[:, None] + torch.arange(COMMITTED, dtype=torch.int32, device=draft.device),
        context_len=before,
        num_rows=torch.full_like(before, COMMITTED),
        committed=int(context_len[0]),
    )


@torch.inference_mode()
def main(
    target: str,
    head: str,
    contexts: Annotated[str, typer.Option(help="Committed rows, a list; the first goes with growing batches.")] = (
        "1024,4096,16384,32768"
    ),
    batches: Annotated[
        str, typer.Option(help="Requests, a list; the first goes with growing contexts.")
    ] = "1,2,4,8,16",
    tree: Annotated[str, typer.Option(help="nodes/depth/topk.")] = "12/4/4",
    dtype: str = "bfloat16",
    repeats: int = 5,
    threads: int | None = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    model, shape = load_target(target, dtype=getattr(torch, dtype)), parse_tree(tree)
    draft = load_draft(head, model, shape)
    lengths, sizes = ([int(part) for part in text.split(",")] for text in (contexts, batches))
    points = [(sizes[0], context) for context in lengths] + [(batch, lengths[0]) for batch in sizes[1:]]
    runner = Target(model, draft.feature_layers)
    rows = []
    with runner.attached():
        for batch, context in track(points, description="timing rounds", transient=True):
            rows += timed_point(SyntheticRound(runner, draft, batch, context), shape, repeats)
    facts = machine(model.device.type) | {"target": Path(target).name, "dtype": dtype, "tree": tree}
    result = {"machine": facts, "growth": rows}
    if out is not None:
        write_json(result, out)
    console().print(growth_table(result))


def timed_point(rounds: SyntheticRound, shape: TreeConfig, repeats: int) -> list[dict[str, Any]]:
    """A row for plain rounds and one for rounds of the tree: medians of seconds by phase, and the round's noise."""
    samples: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for speculate, taken in samples.items():
            taken.append(rounds.run(speculate))
    rows = []
    for speculate, taken in samples.items():
        warm = taken[1:]
        rows.append(
            {
                "batch": rounds.batch,
                "context": rounds.context,
                "nodes": shape.num_nodes if speculate else 1,
                "phases": {phase: spread([sample[phase] for sample in warm]).median for phase in PHASES},
                "noise": spread([sum(sample.values()) for sample in warm]).noise,
            }
        )
    return rows


def break_even(plain: dict[str, Any], tree: dict[str, Any]) -> float:
    """Tokens per round from which drafting pays: the time of a round over that of a plain one."""
    return sum(tree["phases"].values()) / sum(plain["phases"].values())


def growth_lines(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line for each round that was timed."""
    headings = ["batch", "context", "nodes", *(f"{phase} ms" for phase in PHASES), "round ms", "±", "break-even tau"]
    lines, rows = [], result["growth"]
    for plain, tree in zip(rows[::2], rows[1::2], strict=True):
        for row in (plain, tree):
            sizes = [str(row[name]) for name in ("batch", "context", "nodes")]
            phases = [f"{1e3 * row['phases'][phase]:.2f}" for phase in PHASES]
            whole = f"{1e3 * sum(row['phases'].values()):.2f}"
            lines.append([*sizes, *phases, whole, f"{row['noise']:.0%}", ""])
        lines[-1][-1] = f"{break_even(plain, tree):.2f}"
    return headings, lines


def growth_table(result: dict[str, Any]) -> Table:
    headings, lines = growth_lines(result)
    table = Table(title=f"A round's time as context and batch grow; {result['machine']['label']}", title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for line in lines:
        table.add_row(*line)
    return table


if __name__ == "__main__":
    command.run(main)
