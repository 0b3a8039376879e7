"""Every op gives the same bits again: on a second call and, on a GPU, on another stream and from a captured graph."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from compare import assert_bitwise
from draft_head import EPS, DraftHead
from torch import Tensor
from trees import grown_history, random_tree_mask

import eagle_kernels
from eagle_decoding.numerics.cases import FP8_WEIGHTS, with_fp8_weights

OPS = sorted(op for op in eagle_kernels.__all__ if hasattr(torch.ops.eagle_kernels, op))
SIZES = {"hidden": 1024, "heads": 4, "kv_heads": 2, "head_dim": 64, "intermediate": 1100, "cache_length": 300}


def draft_head_arguments(head: DraftHead) -> dict[str, list[Any]]:
    batch, rows, hidden, heads, head_dim = head.batch, head.rows, head.hidden, head.heads, head.head_dim
    outputs = (heads + 2 * head.kv_heads) * head_dim
    table = [head.random(head.positions, head_dim // 2).float() for _ in range(2)]
    caches = [head.random(batch, head.kv_heads, head.cache_length, head_dim) for _ in range(2)]
    cache_rows = torch.arange(rows, dtype=torch.int32, device=head.device).repeat(batch, 1) + 7
    positions = head.integers(0, head.positions, batch, rows)
    x, query = head.random(batch, rows, 2 * hidden), head.random(batch, heads, rows, head_dim)
    mlp = head.weight(2 * head.intermediate, hidden), head.weight(hidden, head.intermediate)
    norm, lm_head = head.random(hidden), head.weight(head.vocabulary, hidden)
    context_len = torch.tensor([200, 3][:batch], dtype=torch.int32, device=head.device)
    mask = random_tree_mask(batch, rows).to(head.device)
    tree = [cache_rows, *table, positions, context_len, mask]
    layers = [
        [norm] * 2,
        [head.weight(outputs, hidden)] * 2,
        [head.weight(hidden, heads * head_dim)] * 2,
        [norm] * 2,
        *([weight] * 2 for weight in mlp),
        torch.stack(caches).unsqueeze(1).repeat(1, 2, 1, 1, 1, 1),
    ]
    return {
        "decoder_layers": [head.hidden_states(), *layers, *tree, heads, 0.125, EPS],
        "linear": [head.hidden_states(), head.weight(hidden, hidden), norm],
        "rms_norm": [head.hidden_states(), norm, EPS],
        "silu_mul": [head.hidden_states(), head.hidden_states()],
        "rope": [query, query[:, :2], *(head.random(batch, rows, head_dim) for _ in range(2))],
        "draft_input": [head.integers(0, 300, batch, rows), head.hidden_states(), lm_head, norm, norm, EPS],
        "draft_qkv_rope": [x, head.weight(outputs, 2 * hidden), None, *table, positions, *caches, cache_rows, heads],
        "tree_attention": [query, *caches, context_len, mask, 0.125],
        "draft_output": [
            x[..., : heads * head_dim],
            head.weight(hidden, heads * head_dim),
            head.hidden_states(),
            norm,
            EPS,
        ],
        "draft_mlp": [head.hidden_states(), *mlp, head.hidden_states()],
        "lm_head_topk": [head.hidden_states(), norm, EPS, lm_head, 10],
    }


def round_arguments(head: DraftHead) -> dict[str, list[Any]]:
    batch, nodes, branching, device = head.batch, 20, 4, head.device
    logits, positions = head.random(batch, nodes, 3000), head.integers(0, 999, batch, nodes)
    parameters = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.01}
    floats = {name: torch.full((batch,), value, device=device) for name, value in parameters.items()}
    seed, top_k = torch.arange(batch, device=device), torch.full((batch,), 50, dtype=torch.int32, device=device)
    filters = [floats["temperature"], top_k, floats["top_p"], floats["min_p"]]
    history = [t.to(device) for t in grown_history(batch, branching, 3)]
    scores, slots = torch.zeros(batch, branching), torch.ones(batch, branching).int()
    frontier = [scores, slots, torch.zeros(batch, branching, 1).long()]
    children = [-torch.rand(batch, branching, branching), torch.ones(batch, branching, branching).int()]
    tokens = [head.integers(0, 2, batch, nodes) for _ in range(3)]
    path = [[0, 3, 7], [0, 5, -1]], [2, 1], [10, 20]
    accept_index, accept_length, context_len = (torch.tensor(t, dtype=torch.int32, device=device) for t in path)
    caches = [head.random(batch, 2, 64, 64) for _ in range(3)]
    chain = torch.arange(-1, nodes - 1, dtype=torch.int32, device=device).repeat(batch, 1)
    return {
        "topk_logprobs": [logits[0], 10],
        "sample_children": [logits, positions, tokens[0] + 2, context_len, seed, *filters, 4],
        "verify_rejection": [logits, logits.roll(1, -1), tokens[0], chain, context_len, seed, *filters],
        "sample_tokens": [logits, positions, seed, *filters],
        "gumbel_noise": [seed, positions, 500, 0],
        "expand_tree": [*(t.to(device) for t in frontier + children), *history, 1 + branching, 0],
        "build_tree": [*history, context_len, 12],
        "verify_tree": tokens,
        "write_kv": [*(head.random(batch, 2, 3, 64) for _ in range(2)), *caches[:2], accept_index + 1],
        "compact_kv": [caches, accept_index, accept_length, context_len],
        "commit_step": [tokens[0], accept_index, accept_length, context_len, logits[..., :64], context_len],
    }


def copies(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [copies(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Tensor):
        yield value


def again(op: Callable[..., Any], arguments: list[Any]) -> Any:
    return op(*arguments)


def on_another_stream(op: Callable[..., Any], arguments: list[Any]) -> Any:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results = op(*arguments)
    stream.synchronize()
    return results


def from_a_graph(op: Callable[..., Any], arguments: list[Any]) -> Any:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = op(*arguments)
    graph.replay()
    torch.cuda.synchronize()
    return results


WAYS = [("cpu", again)]
if torch.cuda.is_available():
    WAYS += [("cuda", again), ("cuda", on_another_stream), ("cuda", from_a_graph)]


def cases(ops: list[str]) -> Any:
    chosen = [(name, *way) for way in WAYS for name in ops]
    ids = [f"{device}-{way.__name__}-{name}" for name, device, way in chosen]
    return pytest.mark.parametrize("name, device, way", chosen, ids=ids)


def assert_repeats(op: Callable[..., Any], arguments: list[Any], way: Callable[..., Any]) -> None:
    """Results, and arguments as the op leaves them."""
    first, second = copies(arguments), copies(arguments)
    expected = [*tensors(op(*first)), *first]
    actual = [*tensors(way(op, second)), *second]
    for i, (a, e) in enumerate(zip(tensors(actual), tensors(expected), strict=True)):
        assert_bitwise(a, e, f"tensor {i}")


@cases(OPS)
def test_gives_the_same_bits(name, device, way):
    head = DraftHead(torch.bfloat16, device, **SIZES)
    arguments = (draft_head_arguments(head) | round_arguments(head))[name]
    assert_repeats(getattr(eagle_kernels, name), arguments, way)


@cases(sorted(FP8_WEIGHTS))
def test_gives_the_same_bits_with_fp8_weights(name, device, way):
    arguments = draft_head_arguments(DraftHead(torch.bfloat16, device, **SIZES))[name]
    arguments, scales = with_fp8_weights(name, tuple(arguments))
    assert_repeats(partial(getattr(eagle_kernels, name), **scales), list(arguments), way)


@pytest.mark.parametrize("head_dim", [64, 128])
@cases(["tree_attention"])
def test_a_tall_tree_gives_the_same_bits(name, device, way, head_dim):
    """60 nodes with four query heads a key head are 240 packed rows: two blocks of the kernel for Hopper."""
    tall = SIZES | {"batch": 1, "rows": 60, "heads": 8, "head_dim": head_dim}
    arguments = draft_head_arguments(DraftHead(torch.bfloat16, device, **tall))[name]
    assert_repeats(getattr(eagle_kernels, name), arguments, way)
