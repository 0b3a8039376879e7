"""Decoding against the clock: transformers' generate, own plain decoding and speculative decoding in one run.

python -m bench.bench_decode TARGET HEAD --data DIR [--prompts 4] [--new-tokens 64] [--out result.json]

Same prompts, same weights, same machine, arms interleaved prompt by prompt. Time counts from the first new token to the
last, so that the prompt's forward is excluded (it is reported). Tokens per round is accepted drafts + 1, over rounds.
"""

import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from bench.questions import chat_prompt, read_questions
from eagle_decoding import SpeculativeDecoder, TreeConfig

ARMS = ("transformers", "plain", "speculative")


class Clock(BaseStreamer):
    """Notes when the first and the last new token came."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass

    @property
    def prefill(self) -> float:
        return self.times[1] - self.start  # times[0] is the prompt handed to the streamer

    @property
    def decode(self) -> float:
        return self.times[-1] - self.times[1]

    @property
    def steps(self) -> int:
        return len(self.times) - 2  # new tokens after the first


@dataclass
class Measurement:
    """Sums over the prompts of one file for one arm; seconds exclude the prompt's forward."""

    tokens: int = 0
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    rounds: int = 0
    accepted: int = 0
    accepted_by_depth: list[int] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_round(self) -> float:
        return 1 + self.accepted / self.rounds if self.rounds else 1.0


def measure(
    decoder: SpeculativeDecoder, arm: str, prompt: Tensor, settings: dict[str, Any], into: Measurement
) -> Tensor:
    clock = Clock()
    if arm == "transformers":
        output = decoder.target.generate(prompt, streamer=clock, **settings)
    else:
        output = decoder.generate(prompt, streamer=clock, speculate=arm == "speculative", **settings)
        stats = decoder.stats
        into.rounds += stats.rounds
        into.accepted += stats.accepted
        longest = max(len(into.accepted_by_depth), len(stats.accepted_by_depth))
        pad = [0] * longest
        pairs = zip(into.accepted_by_depth + pad, stats.accepted_by_depth + pad, strict=False)
        into.accepted_by_depth = [a + b for a, b in list(pairs)[:longest]]
        for phase, seconds in stats.seconds.items():
            into.phases[phase] = into.phases.get(phase, 0.0) + seconds
    into.tokens += clock.steps
    into.seconds += clock.decode
    into.prefill_seconds += clock.prefill
    return output


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    prompts: int = 4,
    new_tokens: int = 64,
    dtype: str = "bfloat16",
    nodes: int = 10,
    depth: int = 4,
    topk: int = 4,
    temperature: Annotated[float, typer.Option(help="0 decodes greedily; else arms sample with one seed.")] = 0.0,
    arms: str = ",".join(ARMS),
    threads: int | None = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    tree = TreeConfig(num_nodes=nodes, max_depth=depth, topk=topk)
    decoder = SpeculativeDecoder.from_pretrained(target, head, tree=tree, dtype=getattr(torch, dtype))
    tokenizer = AutoTokenizer.from_pretrained(target)
    chosen = arms.split(",")
    limit = decoder.target.config.max_position_embeddings - new_tokens
    settings: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": temperature > 0}
    if temperature > 0:
        settings["temperature"] = temperature
    questions = read_questions(data, prompts)
    results = {name: {arm: Measurement() for arm in chosen} for name in questions}
    warm_up = chat_prompt(tokenizer, "Hello")
    for arm in chosen:
        measure(decoder, arm, warm_up, {**settings, "max_new_tokens": 8}, Measurement())
    cases = [(name, question) for name, asked in questions.items() for question in asked]
    for name, question in track(cases, description="decoding"):
        prompt = chat_prompt(tokenizer, question)[:, :limit]
        for arm in chosen:
            torch.manual_seed(0)
            measure(decoder, arm, prompt, settings, results[name][arm])
    Console().print(table(results, chosen))
    if out is not None:
        facts = {
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "dtype": dtype,
            "tree": asdict(tree),
            "temperature": temperature,
            "new_tokens": new_tokens,
            "prompts": prompts,
        }
        files = {name: {arm: asdict(m) for arm, m in by_arm.items()} for name, by_arm in results.items()}
        out.write_text(json.dumps({"facts": facts, "files": files}, indent=1))


def table(results: dict[str, dict[str, Measurement]], arms: list[str]) -> Table:
    """One row a file and the mean: tokens a second of each arm, speed-ups of the last arm, tokens per round."""
    shown = Table(title="Tokens per second without the prompt's forward")
    shown.add_column("file")
    for arm in arms:
        shown.add_column(arm, justify="right")
    for arm in arms[:-1]:
        shown.add_column(f"{arms[-1]} / {arm}", justify="right")
    shown.add_column("tokens per round", justify="right")
    rows = []
    for name, by_arm in results.items():
        speeds = [by_arm[arm].tokens_per_second for arm in arms]
        rows.append([*speeds, *(speeds[-1] / s for s in speeds[:-1]), by_arm[arms[-1]].tokens_per_round])
        shown.add_row(name, *(f"{value:.2f}" for value in rows[-1]))
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    shown.add_row("mean", *(f"{value:.2f}" for value in means))
    return shown


if __name__ == "__main__":
    typer.run(main)
