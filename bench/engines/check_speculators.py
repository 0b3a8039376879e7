"""Compares a head's logits with those of the speculators package, which loads what `export` writes for it.

python -m bench.engines.check_speculators TARGET HEAD [--steps 5] [--tokens 96] [--out FILE]

Needs a Python that has both speculators and this project. In float32, on the target's own features of a prompt and its
answer: the first step against the serving code, every step against the trainer's unrolled loop. Then a head that
speculators saves is read here, and its tensors are compared.
"""

import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from bench import command
from bench.console import console
from bench.machine import machine
from bench.prompts import chat_prompt
from bench.results_file import write_json
from eagle_decoding.checkpoint import Head, HeadConfig, read_head
from eagle_decoding.target import load_target
from eagle_decoding.train.agreement import head_module
from eagle_decoding.train.export import export_head
from eagle_decoding.train.probe import QUESTIONS, answers, boundary_features
from eagle_decoding.train.rows import Documents
from eagle_decoding.train.serving import serving_logits
from eagle_decoding.train.unroll import unroll

BLOCK = 128  # speculators' default attention takes whole blocks of rows where it unrolls


@dataclass(frozen=True)
class Text:
    """A text with the target's states. tokens [T]; fused [T, A * H]: the head's features; final [T, H]."""

    tokens: Tensor
    fused: Tensor
    final: Tensor


def main(
    target: str,
    head: str,
    steps: Annotated[int, typer.Option(help="Unrolled steps that are compared.")] = 5,
    tokens: Annotated[int, typer.Option(help="New tokens of the target's answer.")] = 96,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    model, ours = load_target(target, dtype=torch.float32), read_head(head)
    config = ours.config
    if not isinstance(config, HeadConfig):
        raise ValueError(f"{head} is no EAGLE-3 head, and speculators is compared with those.")
    text = text_of(model, AutoTokenizer.from_pretrained(target), config, tokens)
    with TemporaryDirectory() as folder:
        export_head(head, Path(folder, "ours"), "speculators", torch.float32, target)
        theirs = importlib.import_module("speculators").SpeculatorModel.from_pretrained(
            Path(folder, "ours"), dtype=torch.float32
        )
        theirs.save_pretrained(Path(folder, "theirs"))
        back = read_head(Path(folder, "theirs"))
    logits = speculators_logits(theirs, text, steps)
    served = serving_logits(
        ours, model.get_input_embeddings().weight.detach(), text.fused[:-1].float(), text.tokens[1:]
    )
    result = {
        "machine": machine("cpu") | {"target": Path(target).name, "head": Path(head).name},
        "speculators": importlib.metadata.version("speculators"),
        "positions": len(text.tokens) - 1,
        "first step, serving code": differences(served, logits[0]),
        "unrolled steps, trainer": [
            differences(mine, step[: len(mine)])
            for mine, step in zip(trainer_logits(ours, model, text, steps), logits, strict=True)
        ],
        "saved by speculators, read here": read_back(ours, back, model.config.num_hidden_layers),
    }
    if out is not None:
        write_json(result, out)
    console().print_json(data={key: value for key, value in result.items() if key != "machine"})


def text_of(target: PreTrainedModel, tokenizer: Any, config: HeadConfig, tokens: int) -> Text:
    """A question and the target's greedy answer to it, cut to whole blocks of features and one token more."""
    prompt = chat_prompt(tokenizer, QUESTIONS[0])[0].tolist()
    answer = answers(target, [prompt], tokens, lambda rows, tokens: None)[0]
    ids, layers = torch.tensor(prompt + answer), target.config.num_hidden_layers
    ids = ids[: (len(ids) - 1) // BLOCK * BLOCK + 1]
    *fused, final = boundary_features(target, ids, (*config.layer_ids(layers), layers + 1))
    return Text(ids, torch.cat(fused, -1), final)


@torch.inference_mode()
def speculators_logits(model: Any, text: Text, steps: int) -> list[Tensor]:
    """[T - 1, Vd] of every unrolled step; the last rows of later steps read padding."""
    logits: list[Tensor] = []
    hook = model.lm_head.register_forward_hook(lambda module, inputs, output: logits.append(output[0]))
    ids = torch.zeros(1, len(text.tokens) - 1, dtype=torch.int64)
    model(text.fused[None, :-1], text.tokens[None, 1:], ids, ttt_steps=steps)
    hook.remove()
    return logits


@torch.no_grad()
def trainer_logits(head: Head, target: PreTrainedModel, text: Text, steps: int) -> list[Tensor]:
    """[T - 2 - step, Vd] of every unrolled step: the rows whose next token is in the text."""
    module, total = head_module(head, target), len(text.tokens)
    normed: list[Tensor] = []
    module.get_submodule("norm").register_forward_hook(lambda norm, inputs, output: normed.append(output))
    documents = Documents(text.tokens, torch.ones(total, dtype=torch.bool), torch.tensor([0, total]))
    for _ in unroll(module, documents, text.fused.unflatten(-1, (-1, text.final.shape[-1])), text.final, steps):
        pass
    return [state @ module.lm_head.T for state in normed]


def differences(mine: Tensor, theirs: Tensor) -> dict[str, float]:
    """How far the logits of the same rows are apart, beside their own spread."""
    return {
        "rows": len(mine),
        "worst difference": (mine - theirs).abs().max().item(),
        "standard deviation": mine.std(dim=1).mean().item(),
        "same favourite": (mine.argmax(1) == theirs.argmax(1)).float().mean().item(),
    }


def read_back(ours: Head, theirs: Head, layers: int) -> dict[str, Any]:
    """What differs in the head that the other package wrote, which names the default layers where ours leaves them."""
    mine, read = vars(ours.config), vars(theirs.config)
    if isinstance(ours.config, HeadConfig):
        mine = mine | {"aux_layer_ids": ours.config.layer_ids(layers)}
    tensors = {name: theirs.tensors.get(name) for name in ours.tensors}
    return {
        "other configuration": {key: [mine[key], read[key]] for key in mine if mine[key] != read[key]},
        "tensors": len(tensors),
        "equal tensors": sum(t is not None and torch.equal(t, ours.tensors[name].to(t)) for name, t in tensors.items()),
    }


if __name__ == "__main__":
    command.run(main)
