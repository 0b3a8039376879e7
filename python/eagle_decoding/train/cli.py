"""The training verbs: prepare, capture, train, export. Heavy imports wait until a verb runs, so that help is quick."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; docs/training.md names every key.", dir_okay=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, any number.")]


@app.command()
def prepare(
    target: Annotated[str, typer.Option(help="Directory or hub id of the target, for its chat template.")],
    out: Annotated[Path, typer.Option(help="Token shard to write (.safetensors).")],
    files: Annotated[list[str], typer.Argument(help="JSONL files of conversations.")],
    max_length: Annotated[int, typer.Option(help="Rows are cut at this many tokens.")] = 2048,
) -> None:
    """Turn conversations into token rows with a loss mask."""
    from transformers import AutoTokenizer

    from eagle_decoding.train.prepare import prepare as prepare_rows

    facts = prepare_rows(AutoTokenizer.from_pretrained(target), files, out, max_length)
    typer.echo(
        f"{facts['rows']} rows, {facts['tokens']} tokens, {facts['supervised']:.1%} supervised, "
        f"{facts['dropped']} dropped"
    )
    typer.echo(f"Supervised text of the first row: {facts['sample']!r}")


@app.command()
def capture(
    config: ConfigFile,
    overrides: Overrides = None,
    max_gb: Annotated[float, typer.Option(help="Refuse to write more than this.")] = 50.0,
) -> None:
    """Write the target's features of every token row to data.features."""
    from rich.progress import Progress

    from eagle_decoding.train.capture import capture as capture_features
    from eagle_decoding.train.capture import feature_bytes
    from eagle_decoding.train.config import load_config
    from eagle_decoding.train.data import read_token_rows
    from eagle_decoding.train.target import frozen_target

    options = load_config(config, overrides)
    data = read_token_rows(options.data.tokens)
    tokens = int(data.starts[-1])
    target = frozen_target(options.target)
    size = feature_bytes(data, target)
    typer.echo(f"{tokens} tokens take {size / 1e9:.2f} GB in {options.data.features}")
    with Progress() as bar:
        task = bar.add_task("capture", total=tokens)
        capture_features(
            target, data, options.data.features, max_gb, options.seed, lambda done: bar.advance(task, done)
        )


@app.command()
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train a head; a run that was stopped goes on from its newest checkpoint."""
    from eagle_decoding.train.assemble import build_trainer
    from eagle_decoding.train.config import load_config
    from eagle_decoding.train.progress import RunLog

    options = load_config(config, overrides)
    with RunLog(options.out) as log:
        trainer, facts = build_trainer(options, log)
        typer.echo(str(facts))
        if facts.warning:
            typer.secho(facts.warning, fg="yellow", err=True)
        trainer.run()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The out folder of a training run.")],
    out: Annotated[Path, typer.Argument(help="Head directory to write.")],
) -> None:
    """Write the newest checkpoint as a head directory (bf16) and compare what reads back."""
    from eagle_decoding.train.export import export_head

    export_head(run, out)
    typer.echo(f"Wrote {out}")
