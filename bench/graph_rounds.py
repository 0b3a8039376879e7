"""Milliseconds of a decoding round launched kernel by kernel and replayed as one graph: plain, chain and tree.

python -m bench.graph_rounds [--model SmolLM2-135M] [--new-tokens 128] [--device cuda] [--out FILE]

Weights are random, so a tree is hardly ever accepted; what a round takes does not depend on that. Where rounds cannot
be captured both columns are the same.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from bench.arms import parse_tree, tree_name
from bench.console import console
from bench.machine import machine
from bench.results_file import write_json
from bench.shapes import MODELS, ModelShape
from eagle_decoding import SpeculativeDecoder
from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.drafts import Eagle3Draft

PROMPT = 64


def random_target(shape: ModelShape, dtype: torch.dtype, device: str) -> LlamaForCausalLM:
    """A Llama of this shape; made in place, so that nothing but the weights is ever held."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    model = model.to_empty(device=device).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.02)
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)  # its buffers are no parameters
    return model


def random_head(shape: ModelShape, dtype: torch.dtype, device: str) -> Head:
    config = HeadConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        draft_vocab_size=shape.draft_vocab_size,
        target_hidden_size=shape.hidden_size,
    )
    sizes = config.tensor_shapes()
    tensors = {name: 0.02 * torch.randn(size, dtype=dtype, device=device) for name, size in sizes.items()}
    if "d2t" in tensors:
        tensors["d2t"] = torch.zeros(shape.draft_vocab_size, dtype=torch.int64, device=device)
    return Head(config, tensors)


def timed(decoder: SpeculativeDecoder, prompt: torch.Tensor, settings: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a round one by one and as a graph, and of a call's captures; each after a call to warm up."""
    taken = {}
    for captured in (False, True):
        decoder.graph = captured
        for _ in range(2):
            decoder.generate(prompt, **settings)
        stats = decoder.stats
        taken["graph_ms" if captured else "eager_ms"] = 1e3 * stats.decode_seconds / stats.rounds
    return taken | {"capture_ms": 1e3 * stats.seconds["capture"]}


def main(
    model: str = "SmolLM2-135M",
    new_tokens: int = 128,
    trees: Annotated[str, typer.Option(help="nodes/depth/topk, a list; topk 1 drafts a chain.")] = "6/5/1,60/6/10",
    dtype: str = "bfloat16",
    device: str = "cuda",
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    if model not in MODELS:
        raise typer.BadParameter(f"{model!r} has no listed shape, choose from: {'; '.join(MODELS)}.")
    shape, element = MODELS[model], getattr(torch, dtype)
    torch.manual_seed(0)
    target, head = random_target(shape, element, device), random_head(shape, element, device)
    prompt = torch.randint(shape.vocab_size, (1, PROMPT), device=device)
    settings = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    rows = []
    for text in trees.split(","):
        tree = parse_tree(text)
        embedding = target.get_input_embeddings().weight
        draft = Eagle3Draft(head, embedding, shape.num_layers, tree, element, target.device)
        decoder = SpeculativeDecoder(target, draft)
        if not rows:
            rows.append({"rounds": "plain"} | timed(decoder, prompt, settings | {"speculate": False}))
        rows.append({"rounds": tree_name(tree)} | timed(decoder, prompt, settings))
    facts = machine(target.device.type) | {"model": model, "dtype": dtype, "new_tokens": new_tokens}
    if out is not None:
        write_json({"machine": facts, "graph_rounds": rows}, out)
    table = Table(
        "rounds", "eager ms", "graph ms", "capture ms", title=f"{model}, {dtype}, a round", title_justify="left"
    )
    for row in rows:
        table.add_row(row["rounds"], *(f"{row[name]:.3f}" for name in ("eager_ms", "graph_ms", "capture_ms")))
    console().print(table)


if __name__ == "__main__":
    typer.run(main)
