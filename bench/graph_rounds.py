"""Milliseconds of a decoding round launched kernel by kernel and replayed as one graph, against the floor of its bytes.

python -m bench.graph_rounds [--model SmolLM2-135M] [--trees 6/5/1,60/8/10] [--accept 4] [--device cuda] [--out FILE]

Weights are random. Every round accepts --accept drafts, or as many as its tree is deep, whatever the target chose; the
text means nothing. Each is measured with torch's linear layers in the target and with this package's
layers, beside transformers' own generate. Where rounds cannot be captured there are no graph columns.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch.profiler import ProfilerActivity

from bench import command
from bench.arms import Clock, parse_tree, tree_name
from bench.console import console
from bench.gpu.forced import accepting
from bench.gpu.random_models import random_head, random_target
from bench.gpu.replays import marked_replays
from bench.gpu.timeline import idle_shares, profiled, read_activities
from bench.machine import gpu_state, machine
from bench.results_file import write_json
from bench.shapes import MODELS, ModelShape
from bench.timing import Stopwatch
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import Eagle3Draft
from eagle_decoding.floor.ceilings import Ceilings, measure_ceilings
from eagle_decoding.floor.speed import Floor
from eagle_decoding.floor.work import round_model

PROFILED_ROUNDS = 12  # enough for a steady state, few enough for a small file
LINEAR = {"torch": None, "ours": True}  # whose layers, and what `fused` is then on a GPU


@dataclass
class Bench:
    """A target with random weights and what its rounds are measured with."""

    shape: ModelShape
    dtype: torch.dtype
    watch: Stopwatch
    ceilings: Ceilings
    prompt_tokens: int
    new_tokens: int

    def __post_init__(self) -> None:
        device = self.watch.device
        self.target = random_target(self.shape, self.dtype, device)
        self.head = random_head(self.shape, self.dtype, device)
        self.prompt = torch.randint(1, self.shape.vocab_size, (1, self.prompt_tokens), device=device)  # 0 is padding

    def draft(self, tree: TreeConfig) -> Eagle3Draft:
        embedding = self.target.get_input_embeddings().weight
        return Eagle3Draft(self.head, embedding, self.shape.num_layers, tree, self.dtype, self.target.device)

    def decoder(self, tree: TreeConfig, linear: str) -> SpeculativeDecoder:
        return SpeculativeDecoder(self.target, self.draft(tree), fused=LINEAR[linear])

    def settings(self, new_tokens: int) -> dict[str, Any]:
        return {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def generate(self, decoder: SpeculativeDecoder, speculate: bool, new_tokens: int, captured: bool = True) -> None:
        decoder.graph = captured
        decoder.generate(self.prompt, speculate=speculate, **self.settings(new_tokens))

    def transformers(self, tree: TreeConfig) -> dict[str, Any]:
        """Seconds of a token by transformers' generate, in the second of two calls, beside a plain round's floor."""
        for _ in range(2):
            clock = Clock(self.prompt.device)
            self.target.generate(self.prompt, streamer=clock, **self.settings(self.new_tokens))
        return {
            "rounds": "transformers",
            "linear": "torch",
            "tokens_per_round": 1.0,
            "floor_seconds": self.floor_seconds(self.draft(tree), False, 1.0),
            "eager_seconds": clock.decode / clock.steps,
        }

    def measured(self, tree: TreeConfig, speculate: bool, linear: str) -> dict[str, Any]:
        """Seconds of a round one by one and as a graph, each in the second of two calls, beside its floor."""
        decoder = self.decoder(tree, linear)
        for _ in range(2):
            self.generate(decoder, speculate, self.new_tokens, captured=False)
        stats = decoder.stats
        row = {
            "rounds": tree_name(tree) if speculate else "plain",
            "linear": linear,
            "tokens_per_round": stats.tokens_per_round,
            "floor_seconds": self.floor_seconds(decoder.draft, speculate, stats.tokens_per_round),
            "eager_seconds": stats.decode_seconds / stats.rounds,
        }
        with marked_replays(self.watch) as replays:
            self.generate(decoder, speculate, self.new_tokens)
            row["capture_seconds"] = decoder.stats.seconds["capture"]
            replays.marks.clear()
            self.generate(decoder, speculate, self.new_tokens)
        row |= replays.failed
        if len(replays.marks) > 1:
            row["graph_seconds"] = replays.round_seconds()
            row["graph_device_seconds"] = replays.device_seconds()
            row["share_of_floor_speed"] = row["floor_seconds"] / row["graph_seconds"]
        return row

    def floor_seconds(self, draft: Eagle3Draft, speculate: bool, tokens_per_round: float) -> float:
        """Least time of a round in the middle of the text."""
        context = self.prompt_tokens + self.new_tokens / 2
        floor = Floor(round_model(self.target, draft), self.ceilings, draft.tree, context)
        return floor.round_seconds(tokens_per_round) if speculate else floor.plain_seconds()

    def idle(self, tree: TreeConfig, speculate: bool, linear: str, accept: int, trace: Path) -> dict[str, Any]:
        """Shares of a round in which the device is idle; the timeline is kept."""
        decoder = self.decoder(tree, linear)
        tokens = PROFILED_ROUNDS * (accept + 1 if speculate else 1)
        kind = ProfilerActivity.CUDA if self.watch.device == "cuda" else ProfilerActivity.CPU
        self.generate(decoder, speculate, tokens)
        profiled(lambda: self.generate(decoder, speculate, tokens), kind, trace)
        return idle_shares(read_activities(trace)) | {"timeline": trace.name}


def main(
    model: str = "SmolLM2-135M",
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 64,
    new_tokens: int = 128,
    trees: Annotated[str, typer.Option(help="nodes/depth/topk, a list; topk 1 drafts a chain.")] = "6/5/1,60/8/10",
    accept: Annotated[int, typer.Option(help="Drafts that every round accepts.")] = 4,
    dtype: str = "bfloat16",
    device: str = "cuda",
    timelines: Annotated[
        Path | None, typer.Option(help="Folder for profiled timelines of plain rounds and of the last tree's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file; it grows with every row.")] = None,
) -> None:
    if model not in MODELS:
        raise typer.BadParameter(f"{model!r} has no listed shape, choose from: {'; '.join(MODELS)}.")
    torch.manual_seed(0)
    element = getattr(torch, dtype)
    bench = Bench(MODELS[model], element, Stopwatch(device), measure_ceilings(element, device), prompt, new_tokens)
    facts = machine(device) | {"model": model, "dtype": dtype, "prompt": prompt, "new_tokens": new_tokens}
    result: dict[str, Any] = {"machine": facts, "ceilings": asdict(bench.ceilings), "graph_rounds": []}
    rows: list[dict[str, Any]] = result["graph_rounds"]
    shapes = [parse_tree(text) for text in trees.split(",")]
    arms = [(shapes[-1], False), *((tree, True) for tree in shapes)]
    rows.append(bench.transformers(shapes[-1]))
    with accepting(accept):
        for tree, speculate in arms:
            for linear in LINEAR:
                rows.append(bench.measured(tree, speculate, linear))
                keep(result, out)
        if device == "cuda":
            result["gpu_state_after"] = gpu_state()
        keep(result, out)
        if timelines is not None:
            for tree, speculate in (arms[0], arms[-1]):
                name = tree_name(tree) if speculate else "plain"
                ways = [row for row in rows if row["rounds"] == name]
                row = min(ways, key=lambda row: row.get("graph_seconds", row["eager_seconds"]))
                trace = timelines / f"{model}-{'tree' if speculate else 'plain'}.json.gz"
                row["idle"] = bench.idle(tree, speculate, row["linear"], accept, trace)
                keep(result, out)
    console().print(table_of(result))


def keep(result: dict[str, Any], out: Path | None) -> None:
    """Writes what was measured so far."""
    if out is not None:
        write_json(result, out)


def table_of(result: dict[str, Any]) -> Table:
    """A line for each kind of round."""
    facts = result["machine"]
    table = Table(title=f"{facts['model']}, {facts['dtype']}, milliseconds of a round", title_justify="left")
    columns = ("floor", "eager", "graph", "graph_device", "capture")
    for heading in ("rounds", "layers", *columns, "of the floor's speed"):
        table.add_column(heading.replace("_", ", "))
    for row in result["graph_rounds"]:
        times = [f"{1e3 * row[f'{name}_seconds']:.3f}" if f"{name}_seconds" in row else "" for name in columns]
        share = f"{row['share_of_floor_speed']:.0%}" if "share_of_floor_speed" in row else ""
        table.add_row(row["rounds"], row["linear"], *times, share)
    return table


if __name__ == "__main__":
    command.run(main)
