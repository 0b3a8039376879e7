"""The command that measures every method: eagle-decoding bench."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

FLOOR_PROMPT = "Explain step by step how far a train travels in 4 hours at 40 miles an hour."


@app.command()
def bench(
    data: Annotated[
        Path | None, typer.Option(help="Folder of question files (.jsonl, one object with `turns` a line).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for measurements, table.csv, table.json and table.png.")
    ] = None,
    methods: Annotated[str, typer.Option(help="all, or names from the table, comma-separated.")] = "all",
    target: Annotated[
        str | None,
        typer.Option(help="Model to decode: directory, hub id or .gguf file.", show_default="SmolLM2-135M-Instruct"),
    ] = None,
    draft: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=SOURCE, directory or hub id of a draft head or a small model, as often as there are; "
            "NAME=static:SOURCE fills EAGLE-1's tree; the first also goes into a hybrid and into auto.",
            show_default="eagle-3=the head for the default target",
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Questions of each file.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="Times that everything is measured.")] = 3,
    temperatures: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    draft_dtype: Annotated[
        str | None,
        typer.Option(help="float8_e4m3fn serves every EAGLE head given in fp8.", show_default="--dtype"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU.", show_default="torch's choice")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:NUMBER.", show_default="cuda where there is one, else cpu")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Stop after so long, and show what can be compared by then.", show_default="no limit"),
    ] = None,
    floor: Annotated[
        bool, typer.Option("--floor", help="Instead: each phase's bytes, its least possible time, what that allows.")
    ] = False,
) -> None:
    """Measure every drafting method on the same prompts and print the table. The same command again resumes."""
    if floor:
        return show_floor(target, draft or [], dtype, draft_dtype, max_new_tokens, device)
    if data is None or out is None:
        raise ValueError("bench needs --data with question files and --out for the results, or --floor.")
    from eagle_decoding.bench.run import Settings, run_bench
    from eagle_decoding.terminal.console import notice
    from eagle_decoding.terminal.models import DRAFT_DTYPES, device_named, element_type

    try:
        heats = tuple(float(value) for value in temperatures.split(","))
    except ValueError:
        raise ValueError(f"--temperatures {temperatures} is not a comma-separated list of numbers like 0,1.") from None
    if draft_dtype is not None:
        element_type(draft_dtype, "--draft-dtype", DRAFT_DTYPES)
    settings = Settings(
        target,
        tuple(draft or ()),
        prompts,
        max_new_tokens,
        runs,
        heats,
        dtype,
        draft_dtype,
        threads,
        minutes,
        device_named(device),
    )
    try:
        run_bench(settings, methods, data, out)
    except KeyboardInterrupt:
        notice(f"Interrupted. What was measured is in {out}: the same command goes on from there.")
        raise typer.Exit(130) from None


def show_floor(
    target: str | None,
    drafts: list[str],
    dtype: str,
    draft_dtype: str | None,
    max_new_tokens: int,
    device: str | None,
) -> None:
    """Measures the machine and a short decode with one EAGLE-3 head, and prints how far a round is from the floor."""
    from eagle_decoding.floor.run import run_floor
    from eagle_decoding.terminal.models import device_named, load_models

    if len(drafts) > 1:
        raise ValueError(f"--floor is about one draft head, got {len(drafts)}: give one --draft.")
    directory = drafts[0].rpartition("=")[2] if drafts else None
    models = load_models(target, directory, dtype, None, draft_dtype=draft_dtype, device=device_named(device))
    run_floor(models, FLOOR_PROMPT, max_new_tokens)
