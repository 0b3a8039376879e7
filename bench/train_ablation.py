"""Trains a list of named configurations one after the other and compares them on held-out rows.

    python -m bench.train_ablation STUDY.yaml --out FOLDER [section.key=value ...]

A study names what it compares, a configuration that all runs share with one budget (`optim.minutes` or `optim.tokens`),
at how many drafts they are compared, and per run the overrides that make it different. Finished runs are kept, a run
that was stopped goes on. Writes `results.json`, `results.md` and `results.svg` after every run.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from bench.machine import machine
from bench.results_file import rounded, write_json
from eagle_decoding.figure import COLOURS, dress, new_figure
from eagle_decoding.files import write_text
from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.config import ConfigError, TrainConfig, load_config
from eagle_decoding.train.plot import plot_runs
from eagle_decoding.train.process import settle_process
from eagle_decoding.train.progress import RunLog


@dataclass(frozen=True)
class Study:
    """title: what is compared. axis: `runs`, or `tokens` to draw tau_sim against the size of the training data.
    depth: drafts per chain in the comparison. base: overrides of all runs. runs: name to the overrides of that run."""

    title: str
    axis: str
    depth: int
    base: list[str]
    runs: dict[str, list[str]]

    def __post_init__(self) -> None:
        if self.axis not in ("runs", "tokens"):
            raise ConfigError(f"The study's axis is {self.axis!r}; it is either runs or tokens.")

    @classmethod
    def read(cls, path: Path) -> Study:
        """Raises ConfigError unless the file holds exactly these keys."""
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"The study {path} cannot be read ({reason}); name one as in bench/studies.") from error
        if not isinstance(values, dict) or set(values) != set(cls.__annotations__):
            held = sorted(values) if isinstance(values, dict) else values
            raise ConfigError(f"The study {path} holds {held}; it takes {sorted(cls.__annotations__)}.")
        return cls(**values)

    def config(self, name: str, out: Path, more: list[str]) -> TrainConfig:
        return load_config(None, [*self.base, *self.runs[name], *more, f"out={out / slug(name)}"])


def slug(name: str) -> str:
    """A folder name for a run."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def train_one(study: Study, name: str, config: TrainConfig) -> dict[str, Any]:
    """Train one configuration to its end and measure it on held-out rows at the study's depth."""
    with RunLog(config.out) as log:
        trainer, facts = build_trainer(config, log)
        if not trainer.held_out_rows:
            raise ConfigError(
                f"A study compares held-out rows, and data.held_out={config.data.held_out:g} holds out none."
            )
        figures = trainer.run()
        if config.unroll.steps != study.depth:
            config.unroll.steps = study.depth
            figures = trainer.evaluate()
    return {
        "name": name,
        "overrides": study.runs[name],
        "parameters": facts.parameters,
        "unique_tokens": facts.supervised_tokens,
        "coverage": round(facts.coverage, 4),
        "trained_tokens": trainer.progress["tokens"],
        "minutes": round(trainer.progress["seconds"] / 60, 2),
        "tau_sim": figures["tau_sim"],
        "survival": figures["survival"],
        "loss": figures["loss"][0],
    }


def finished(file: Path) -> dict[str, Any] | None:
    """The result of a run, or None where there is none or it is damaged: the run then goes on, from its end at most."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def run_study(study: Study, out: Path, more: list[str]) -> list[dict[str, Any]]:
    """Train what is not finished yet; the results are written again after every run."""
    results = []
    for name in study.runs:
        config = study.config(name, out, more)
        file = Path(config.out) / "result.json"
        result = finished(file)
        if result is None:
            result = rounded(train_one(study, name, config))
            write_json(result, file)
        results.append(result)
        write_json({"machine": machine("cpu"), "runs": results}, out / "results.json")
        write_text(out / "results.md", table(study, results))
        draw(study, results, out)
    return results


def table(study: Study, results: list[dict[str, Any]]) -> str:
    """The results as a markdown table, one row a run."""
    head = ["run", "unique tokens", "trained tokens", "minutes", "coverage", "tau_sim"]
    head += [f"S{depth}" for depth in range(1, study.depth + 1)]
    lines = [f"{study.title}, held-out rows, chains of {study.depth}:", "", "| " + " | ".join(head) + " |"]
    lines.append("|---" * len(head) + "|")
    for result in results:
        cells = [result["name"], f"{result['unique_tokens']:,}", f"{result['trained_tokens']:,}"]
        cells += [f"{result['minutes']:.1f}", f"{result['coverage']:.1%}", f"**{result['tau_sim']:.3f}**"]
        cells += [f"{value:.3f}" for value in result["survival"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(study: Study, results: list[dict[str, Any]], out: Path) -> None:
    """tau_sim against the size of the training data, or the training curves of all runs."""
    if study.axis == "runs":
        plot_runs([out / slug(result["name"]) for result in results], out / "results.svg")
        return
    figure = new_figure(6, 4)
    axes = figure.subplots()
    points = sorted((result["unique_tokens"], result["tau_sim"]) for result in results)
    axes.semilogx(*zip(*points, strict=True), color=COLOURS[0], marker="o")
    dress(axes, "different answer tokens in the training data", "tau_sim on held-out rows")
    figure.savefig(out / "results.svg", transparent=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("overrides", nargs="*", help="section.key=value for every run, such as where the data are")
    options = parser.parse_intermixed_args(arguments)  # overrides may stand behind options
    torch.set_num_threads(options.threads)
    settle_process()
    try:
        study = Study.read(options.study)
        print(table(study, run_study(study, options.out, options.overrides)))
    except ValueError as error:
        parser.exit(1, f"Error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Interrupted. Finished runs are kept: the same command goes on from there.\n")


if __name__ == "__main__":
    main()
