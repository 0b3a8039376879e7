"""The command line: eagle-decoding demo, generate, chat, bench, info, numerics, and the training commands."""

import os
import re
import sys
import time
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from eagle_decoding.bench import cli as benchmark
from eagle_decoding.config import TreeConfig
from eagle_decoding.numerics import cli as numerics
from eagle_decoding.train import cli as training

# Read when torch is loaded. Threads that wait for others spin this often before they give their processor up. OpenMP
# has them spin much longer, and keep the others from running where another program takes a processor too.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


class OneSentence:
    """Ends a command that was given something wrong with one sentence instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)  # type: ignore[misc]  # of the class that this is mixed into
        except BrokenPipeError:  # who reads the output has enough, and that is no error to tell
            raise
        except (ValueError, OSError, RuntimeError) as error:
            from eagle_decoding.terminal.console import err

            sentence = str(error).strip().splitlines()[0]
            if isinstance(error, RuntimeError):
                if not out_of_memory(error):
                    raise
                what = sentence.partition(" GPU ")[0].rstrip(".")
                sentence = f"{what}: take a smaller model or a shorter text."
            err.print(f"Error: {sentence}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from error


class Command(OneSentence, TyperCommand):
    """A program that is one command."""


class Commands(OneSentence, TyperGroup):
    """A program of several commands."""


def out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError)


app = typer.Typer(
    cls=Commands,
    help="Speculative decoding of transformers models with EAGLE heads: the model's own text, sooner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(training.app)
app.add_typer(numerics.app)
app.add_typer(benchmark.app)

OWN = "the method's own"
DEMO_PROMPT = "A train travels 60 miles in an hour and a half. How far does it travel in 4 hours? Explain each step."

Target = Annotated[
    str | None,
    typer.Option(help="Model to decode: directory, hub id or .gguf file.", show_default="SmolLM2-135M-Instruct"),
]
Draft = Annotated[
    str | None,
    typer.Option(
        help="Directory or hub id of a draft head or a small model; prompt-lookup, suffix or lookahead, which need "
        "none; static:SOURCE for EAGLE-1's static tree; suffix+SOURCE for both in one tree; "
        "auto:DRAFT for drafting only where it pays.",
        show_default="the head for the default target",
    ),
]
Dtype = Annotated[str, typer.Option(help="bfloat16, float16 or float32.")]
DraftDtype = Annotated[
    str | None,
    typer.Option(
        help="float8_e4m3fn serves an EAGLE head in half of bfloat16's bytes; the text stays the same.",
        show_default="--dtype",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:NUMBER.", show_default="cuda where there is one, else cpu")
]
NumNodes = Annotated[int | None, typer.Option(help="Nodes of a draft tree, the root included.", show_default=OWN)]
MaxDepth = Annotated[int | None, typer.Option(help="Levels of a draft tree below the root.", show_default=OWN)]
TopK = Annotated[
    int | None, typer.Option(help="Children per expanded node of a draft tree; 1 drafts a chain.", show_default=OWN)
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token, more varies the text.")]
SampleTopK = Annotated[int, typer.Option(min=0, help="Sample from so many of the likeliest tokens; 0 from all.")]
TopP = Annotated[float, typer.Option(min=0, max=1, help="Share of the probability to sample from.")]
MinP = Annotated[
    float, typer.Option(min=0, max=1, help="Sample only tokens this probable, as a share of the likeliest one's.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text, with and without drafting.")]
Speculate = Annotated[bool, typer.Option("--speculate/--no-speculate", help="Draft, or decode plainly.")]
Typical = Annotated[
    bool,
    typer.Option(
        "--typical-acceptance",
        help="LOSSY: keep drafts that the model finds plausible (Medusa's rule), for more tokens a round.",
    ),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--raw",
        help="Put the prompt into the model's chat template, or continue it as it stands.",
        show_default="chat where the model has a template",
    ),
]


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"eagle-decoding {version('eagle-kernels')}")
        raise typer.Exit


@app.callback()
def options(
    asked: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def demo(
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = DEMO_PROMPT,
    target: Target = None,
    draft: Draft = None,
    dtype: Dtype = "bfloat16",
    draft_dtype: DraftDtype = None,
    device: Device = None,
    max_new_tokens: MaxNewTokens = 128,
    num_nodes: NumNodes = None,
    max_depth: MaxDepth = None,
    topk: TopK = None,
) -> None:
    """Answer a prompt speculatively, then plainly, and compare: text, speed, acceptance, time, the last draft tree."""
    from eagle_decoding.terminal.demo import run_demo
    from eagle_decoding.terminal.models import device_named, load_models

    tree = tree_shape(num_nodes, max_depth, topk)
    models = load_models(target, draft, dtype, tree, draft_dtype=draft_dtype, device=device_named(device))
    name = "EAGLE-3" if draft is None else re.sub(r"[^+:]*/", "", draft.rstrip("/"))  # without the way to a directory
    run_demo(models, prompt, max_new_tokens, name)


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to answer; without it the standard input is read.")] = None,
    target: Target = None,
    draft: Draft = None,
    dtype: Dtype = "bfloat16",
    draft_dtype: DraftDtype = None,
    device: Device = None,
    max_new_tokens: MaxNewTokens = 256,
    temperature: Temperature = 0.0,
    top_k: SampleTopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    speculate: Speculate = True,
    typical_acceptance: Typical = False,
    chat: Chat = None,
    num_nodes: NumNodes = None,
    max_depth: MaxDepth = None,
    topk: TopK = None,
) -> None:
    """Answer one prompt, as text on the standard output."""
    from transformers import TextStreamer

    from eagle_decoding.terminal.console import notice
    from eagle_decoding.terminal.models import device_named, load_models
    from eagle_decoding.terminal.report import summary
    from eagle_decoding.typical import TypicalAcceptance

    text = sys.stdin.read() if prompt is None else prompt
    if not text.strip():
        raise ValueError("The prompt is empty: give one as an argument or on the standard input.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("The prompt holds bytes that are no UTF-8 text: convert it to UTF-8.")
    settings = sampling(temperature, top_k, top_p, min_p, seed, typical_acceptance)
    settings |= {"max_new_tokens": max_new_tokens, "speculate": speculate}
    if typical_acceptance:
        settings["typical_acceptance"] = TypicalAcceptance()
    tree = tree_shape(num_nodes, max_depth, topk, settings["do_sample"])
    if not speculate:
        tell_ignored(draft, draft_dtype, num_nodes, max_depth, topk, typical_acceptance)
    where = device_named(device)
    models = load_models(target, draft, dtype, tree, speculate=speculate, draft_dtype=draft_dtype, device=where)
    inputs = models.encode_prompt(text, chat)
    streamer = TextStreamer(models.tokenizer, skip_prompt=True, skip_special_tokens=True)
    start = time.perf_counter()
    try:
        models.decoder.generate(**inputs, **settings, streamer=streamer)
    except KeyboardInterrupt:
        streamer.end()  # the words so far, on a line of their own
        raise
    notice(summary(models.decoder.stats, time.perf_counter() - start))


@app.command()
def chat(
    target: Target = None,
    draft: Draft = None,
    dtype: Dtype = "bfloat16",
    draft_dtype: DraftDtype = None,
    device: Device = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    top_k: SampleTopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    speculate: Speculate = True,
    num_nodes: NumNodes = None,
    max_depth: MaxDepth = None,
    topk: TopK = None,
) -> None:
    """Talk to a model; the conversation so far is its context."""
    from eagle_decoding.terminal.chat import run_chat
    from eagle_decoding.terminal.models import device_named, load_models

    settings = sampling(temperature, top_k, top_p, min_p, seed)
    settings |= {"max_new_tokens": max_new_tokens, "speculate": speculate}
    tree = tree_shape(num_nodes, max_depth, topk, settings["do_sample"])
    if not speculate:
        tell_ignored(draft, draft_dtype, num_nodes, max_depth, topk)
    where = device_named(device)
    models = load_models(target, draft, dtype, tree, speculate=speculate, draft_dtype=draft_dtype, device=where)
    run_chat(models, settings)


@app.command()
def info() -> None:
    """Show what was built, where it runs, and the versions."""
    from eagle_decoding.terminal.console import out
    from eagle_decoding.terminal.information import info_table

    out.print(info_table())


def tree_shape(
    num_nodes: int | None, max_depth: int | None, topk: int | None, samples: bool = False
) -> TreeConfig | None:
    """The tree that was asked for, None for the method's own.

    samples: whether --top-k is of use here: --topk, where it exceeds a tree's nodes, may have been typed for it
    """
    asked = {"num_nodes": num_nodes, "max_depth": max_depth, "topk": topk}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    mistaken = samples and topk is not None and topk > given.get("num_nodes", TreeConfig.num_nodes)
    hint = f"--topk is about draft trees: to sample from the {topk} likeliest tokens, say --top-k {topk}."
    try:
        tree = TreeConfig(**given) if given else None
    except ValueError as error:
        if not mistaken:
            raise
        raise ValueError(f"{str(error).removesuffix('.')}; {hint}") from error
    if mistaken:
        from eagle_decoding.terminal.console import notice

        notice(hint)
    return tree


def tell_ignored(
    draft: str | None,
    draft_dtype: str | None,
    num_nodes: int | None,
    max_depth: int | None,
    topk: int | None,
    typical_acceptance: bool = False,
) -> None:
    """Says which of the options about drafting were given along with --no-speculate."""
    from eagle_decoding.terminal.console import notice

    options = {"--draft": draft, "--draft-dtype": draft_dtype, "--num-nodes": num_nodes, "--max-depth": max_depth}
    options |= {"--topk": topk, "--typical-acceptance": typical_acceptance or None}
    given = [name for name, value in options.items() if value is not None]
    if given:
        notice(f"--no-speculate ignores {', '.join(given)}.")


def sampling(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int | None, typical_acceptance: bool = False
) -> dict[str, Any]:
    """Arguments of generate: greedy at temperature 0, else sampling from the tokens that the filters leave.

    Raises ValueError for options that greedy decoding has no use for.
    """
    if temperature == 0:
        given = {"--top-k": top_k != 0, "--top-p": top_p != 1, "--min-p": min_p != 0, "--seed": seed is not None}
        useless = [
            name for name, is_given in (given | {"--typical-acceptance": typical_acceptance}).items() if is_given
        ]
        if useless:
            raise ValueError(f"{', '.join(useless)}: these are about sampling, which needs --temperature above 0.")
        return {"do_sample": False}
    filters = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    return {"do_sample": True, "temperature": temperature, **filters, "seed": seed}
