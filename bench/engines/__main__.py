"""Decoding here against other engines on the same weights: python -m bench.engines TARGET HEAD --data DIR

[--llama-server PATH --target-gguf FILE [--head-gguf FILE] [--quantised-gguf FILE]] [--vllm-python PATH] [--out FILE]

Same prompts as token ids, greedy, batch 1, up to the same number of new tokens. All engines are started once and decode
in turns, prompt by prompt; each is timed by itself, from the first new token to the last. TARGET is a directory that
vLLM reads too, the .gguf files are conversions of it and of HEAD. An engine that is not given is left out.
"""

from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from transformers import AutoTokenizer

from bench import command
from bench.arms import baseline, parse_tree, speculative
from bench.console import console
from bench.engines.engine import Answer, Engine, Ours
from bench.engines.llama_server import LlamaServer, llama_arms, llama_version
from bench.engines.speeds import speed_table
from bench.engines.texts import against_float32
from bench.engines.vllm_engine import Vllm, vllm_arms
from bench.machine import machine
from bench.prompts import prompts_of
from bench.results_file import write_json
from eagle_decoding import TreeConfig
from eagle_decoding.checkpoint import read_head
from eagle_decoding.target import load_target

WARM_UP_TOKENS = 8


@dataclass
class Measurement:
    """Sums over the answers of one arm to the prompts of one file."""

    prompts: int = 0
    steps: int = 0
    rounds: int = 0
    prompt_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, answer: Answer) -> None:
        self.prompts += 1
        self.steps += answer.steps
        self.rounds += answer.rounds
        self.prompt_seconds += answer.prompt_seconds
        self.seconds += answer.seconds


def main(
    target: str,
    head: str,
    data: Annotated[Path, typer.Option(help="Folder of question files (.jsonl).")],
    llama_server: Annotated[Path | None, typer.Option(help="llama.cpp's server.")] = None,
    target_gguf: Annotated[Path | None, typer.Option(help="The target's weights, unquantised.")] = None,
    head_gguf: Annotated[Path | None, typer.Option(help="The head, for llama.cpp's chains.")] = None,
    quantised_gguf: Annotated[Path | None, typer.Option(help="Cheaper weights, as a row of its own.")] = None,
    vllm_python: Annotated[Path | None, typer.Option(help="The Python that has vLLM.")] = None,
    vllm_preload: Annotated[str, typer.Option(help="LD_PRELOAD for vLLM, which asks for tcmalloc and libiomp.")] = "",
    trees: Annotated[str, typer.Option(help="Trees here, nodes/depth/topk, a list.")] = "8/4/4",
    drafts: Annotated[str, typer.Option(help="Drafted tokens of a chain, a list, for every engine.")] = "2,3,5",
    prompts: Annotated[int, typer.Option(help="Questions of each file.")] = 2,
    new_tokens: int = 64,
    threads: int = 2,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    if llama_server and not target_gguf:
        raise ValueError("--llama-server needs --target-gguf, the same weights in llama.cpp's format.")
    if head_gguf and not llama_server:
        raise ValueError("--head-gguf is for llama.cpp: give --llama-server and --target-gguf too.")
    torch.set_num_threads(threads)
    chains = [int(size) for size in drafts.split(",") if size]
    tokenizer = AutoTokenizer.from_pretrained(target)
    model = load_target(target, dtype=torch.bfloat16)
    found, num_cut = prompts_of(tokenizer, data, prompts, model.config.max_position_embeddings - new_tokens)
    cases = [(name, prompt[0].tolist()) for name, _, prompt in found]
    context = max(len(prompt) for _, prompt in cases) + new_tokens + max(chains, default=0)
    drafted = [*map(parse_tree, trees.split(",")), *(TreeConfig(size + 1, size, 1) for size in chains)]
    arms = [baseline("plain", model, context), *(speculative(model, head, tree) for tree in drafted)]
    engines: dict[str, Engine] = {f"here, {arm.name}": Ours(arm) for arm in arms}
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        if llama_server and target_gguf:
            versions["llama.cpp"] = llama_version(llama_server)
            for name, weights, arguments in llama_arms(target_gguf, head_gguf, quantised_gguf, chains):
                server = LlamaServer(llama_server, weights, arguments, threads, context)
                engines[name] = stack.enter_context(closing(server))
        if vllm_python:
            for name, speculation in vllm_arms(head, chains):
                worker = Vllm(vllm_python, target, speculation, threads, context, vllm_preload)
                engines[name] = stack.enter_context(closing(worker))
                versions["vLLM"] = worker.version
        result, texts = measured(engines, cases, new_tokens, tokenizer.eos_token_id)
    judge = load_target(target, dtype=torch.float32)
    result["float32"] = against_float32(judge, read_head(head), [prompt for _, prompt in cases], texts)
    facts = {"target": Path(target).name, "head": Path(head).name, "engines": versions, "new_tokens": new_tokens}
    facts |= {"prompts": len(cases), "cut_prompts": num_cut}
    result = {"machine": machine("cpu") | facts, **result}
    if out is not None:
        write_json(result, out)
    console().print(speed_table(result))


def measured(
    engines: dict[str, Engine], cases: list[tuple[str, list[int]]], new_tokens: int, end: int | None
) -> tuple[dict[str, Any], dict[str, list[list[int]]]]:
    """Every prompt on every engine, in turns, and the texts; the first engine's are what others are compared with.

    end: the token that ends a text; some engines give it back, some do not
    """
    for engine in engines.values():
        engine.ask(cases[0][1], WARM_UP_TOKENS)
    files: dict[str, dict[str, Measurement]] = {}
    texts: dict[str, list[list[int]]] = {name: [] for name in engines}
    idle = dict.fromkeys(engines, 0.0)
    rested = {name: engine.cpu_seconds() for name, engine in engines.items()}
    for file, prompt in track(cases, description="decoding", transient=True):
        by_engine = files.setdefault(file, {name: Measurement() for name in engines})
        for name, engine in engines.items():
            idle[name] += engine.cpu_seconds() - rested[name]
            answer = engine.ask(prompt, new_tokens)
            rested[name] = engine.cpu_seconds()
            by_engine[name].add(answer)
            texts[name].append(answer.tokens[:-1] if answer.tokens[-1:] == [end] else answer.tokens)
    first = next(iter(texts.values()))
    result = {
        "files": {file: {name: asdict(m) for name, m in by_engine.items()} for file, by_engine in files.items()},
        "equal_texts": {name: sum(map(list.__eq__, own, first)) / len(cases) for name, own in texts.items()},
        "idle_cpu_seconds": idle,
    }
    return result, texts


if __name__ == "__main__":
    command.run(main)
