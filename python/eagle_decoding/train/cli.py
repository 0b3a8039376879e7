"""The training commands: prepare, capture, train, export; eagle_decoding.cli mounts them and reports their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from eagle_decoding.train.config import load_config
from eagle_decoding.train.progress import RunLog

# What needs torch is imported by the command that needs it, so that --help answers at once.
app = typer.Typer(no_args_is_help=True, help="Train a draft head for a target model.")
console = Console()

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; see docs/training.md", exists=True, dir_okay=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, any number")]


@app.command()
def prepare(
    target: Annotated[str, typer.Option(help="directory or hub id of the target, for its tokenizer and chat template")],
    out: Annotated[Path, typer.Option(help="token shard to write (.safetensors)")],
    files: Annotated[list[str], typer.Argument(help="JSONL files of conversations")],
    max_length: Annotated[int, typer.Option(help="rows are cut at this many tokens")] = 2048,
) -> None:
    """Turn conversations into token rows with a loss mask."""
    from transformers import AutoTokenizer

    from eagle_decoding.train.prepare import prepare as prepare_rows

    facts = prepare_rows(AutoTokenizer.from_pretrained(target), files, out, max_length)
    console.print(
        f"{facts['rows']} rows, {facts['tokens']} tokens, {facts['supervised']:.1%} supervised, "
        f"{facts['dropped']} dropped"
    )
    console.print(f"supervised text of the first row: {facts['sample']!r}", markup=False)


@app.command()
def capture(
    config: ConfigFile,
    overrides: Overrides = None,
    max_gb: Annotated[float, typer.Option(help="refuse to write more than this")] = 50.0,
) -> None:
    """Write the target's features of every token row to data.features."""
    from eagle_decoding.train.capture import capture as capture_features
    from eagle_decoding.train.capture import feature_bytes
    from eagle_decoding.train.data import read_token_rows
    from eagle_decoding.train.target import frozen_target

    options = load_config(config, overrides)
    with Progress(console=console) as bar:
        data = read_token_rows(options.data.tokens)
        model = frozen_target(options.target)
        size = feature_bytes(data, 3, model.config.get_text_config().hidden_size)
        console.print(f"{int(data.starts[-1])} tokens, {size / 1e9:.2f} GB")
        task = bar.add_task("capture", total=int(data.starts[-1]))
        capture_features(
            model, data, options.data.features, max_gb, options.seed, lambda tokens: bar.advance(task, tokens)
        )


@app.command()
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train a head; a run that was stopped goes on from its newest checkpoint."""
    from eagle_decoding.train.assemble import build_trainer

    options = load_config(config, overrides)
    with RunLog(options.out, console) as log:
        trainer, facts = build_trainer(options, log)
        console.print(
            f"{facts.parameters / 1e6:.2f} M parameters, {facts.train_rows} rows with {facts.supervised_tokens} "
            f"supervised tokens, {facts.held_out_rows} rows held out, draft vocabulary covers {facts.coverage:.1%}"
        )
        if facts.warning:
            console.print(f"[yellow]{facts.warning}")
        trainer.run()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="the out folder of a training run")],
    out: Annotated[Path, typer.Argument(help="head directory to write")],
) -> None:
    """Write the newest checkpoint as a head directory (bf16) and compare what reads back."""
    from eagle_decoding.train.export import export_head

    export_head(run, out)
    console.print(f"wrote {out}")
