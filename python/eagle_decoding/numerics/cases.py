"""Inputs for every op, of any size: what checks of numbers and checks of compilation run the ops on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.tree import ancestor_words

# The weights that an op takes in fp8 as well: their places, and the names of their scales.
FP8_WEIGHTS = {
    "linear": {1: "weight_scale"},
    "draft_qkv_rope": {1: "qkv_scale"},
    "draft_output": {1: "o_scale"},
    "draft_mlp": {1: "gate_up_scale", 2: "down_scale"},
    "lm_head_topk": {3: "lm_head_scale"},
}


@dataclass(frozen=True)
class Sizes:
    """Of a target with its EAGLE-3 head, and of one round of decoding."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int
    vocab_size: int
    draft_vocab_size: int
    batch: int
    context_len: int
    num_nodes: int
    max_depth: int
    topk: int


@dataclass(frozen=True)
class Maker:
    """Random tensors of one dtype on one device, drawn on the CPU so that every device gets the same; none for meta."""

    dtype: torch.dtype
    device: str

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        if self.device == "meta":
            return torch.empty(shape, dtype=self.dtype, device="meta")
        return (torch.randn(shape) * scale).to(self.dtype).to(self.device)

    def weight(self, rows: int, width: int) -> Tensor:
        return self.normal(rows, width, scale=width**-0.5)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        if self.device == "meta":
            return torch.empty(shape, dtype=torch.int32, device="meta")
        return torch.randint(low, high, shape, dtype=torch.int32).to(self.device)

    def tensor(self, values: Any, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.as_tensor(values, dtype=dtype).to(self.device)


def op_inputs(sizes: Sizes, dtype: torch.dtype, device: str) -> dict[str, tuple[Any, ...]]:
    """The positional arguments of every op, by name."""
    make = Maker(dtype, device)
    torch.manual_seed(0)
    return {
        **dense_inputs(sizes, make),
        "decoder_layers": layer_inputs(sizes, make),
        **vocabulary_inputs(sizes, make),
        **rejection_inputs(sizes, make),
        **tree_inputs(sizes, make),
    }


def variants(op: str, inputs: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Other ways to call an op on inputs of `op_inputs`: what is different, the arguments, and those by name."""
    if op in FP8_WEIGHTS:
        yield "fp8 weights", *with_fp8_weights(op, inputs)
    if op == "draft_qkv_rope":
        key_cache = inputs[6]
        weight = torch.linspace(0.5, 1.5, key_cache.shape[3], dtype=key_cache.dtype, device=key_cache.device)
        yield "norms", inputs, {"q_norm_weight": weight, "k_norm_weight": weight.flip(0), "norm_eps": 1e-6}
    if op == "tree_attention":
        query = inputs[0]
        sinks = torch.linspace(-1, 2, query.shape[1], dtype=query.dtype, device=query.device)
        yield "window and sinks", inputs, {"window": 128, "sinks": sinks}


def with_fp8_weights(op: str, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """The arguments of an op of FP8_WEIGHTS again, its weights quantised, and their scales by name."""
    arguments, scales = list(inputs), {}
    for place, name in FP8_WEIGHTS[op].items():
        weight = inputs[place]
        if weight.is_meta:
            arguments[place] = weight.to(torch.float8_e4m3fn)
            scales[name] = torch.empty(len(weight), device="meta")
        else:
            arguments[place], scales[name] = eagle_kernels.quantize_fp8(weight)
    return tuple(arguments), scales


def dense_inputs(s: Sizes, make: Maker) -> dict[str, tuple[Any, ...]]:
    """The draft head's layer on topk rows a request, and attention of the whole tree."""
    rows, heads, width = s.topk, s.num_heads + 2 * s.num_kv_heads, s.num_heads * s.head_dim
    length = s.context_len + 2 * 64
    hidden = make.normal(s.batch, rows, s.hidden_size)
    norm = make.normal(s.hidden_size) + 1
    table = torch.outer(torch.arange(length), 1e4 ** -torch.linspace(0, 1, s.head_dim // 2))
    caches = [make.normal(s.batch, s.num_kv_heads, length, s.head_dim) for _ in range(2)]
    draft_caches = [make.normal(s.batch, s.num_kv_heads, length, s.head_dim) for _ in range(2)]
    cache_rows = make.tensor(s.context_len + torch.arange(rows).expand(s.batch, rows))
    context = make.tensor([s.context_len - b for b in range(s.batch)])
    rotary = [make.normal(s.batch, s.num_nodes, s.head_dim) for _ in range(2)]
    return {
        "rms_norm": (hidden, norm, 1e-5),
        "silu_mul": (
            make.normal(s.batch, s.num_nodes, s.intermediate_size),
            make.normal(s.batch, s.num_nodes, s.intermediate_size),
        ),
        "rope": (
            make.normal(s.batch, s.num_heads, s.num_nodes, s.head_dim),
            make.normal(s.batch, s.num_kv_heads, s.num_nodes, s.head_dim),
            *rotary,
        ),
        "linear": (
            make.normal(s.batch, rows, 3 * s.hidden_size),
            make.weight(s.hidden_size, 3 * s.hidden_size),
            make.normal(s.hidden_size),
        ),
        "draft_input": (
            make.integers(0, s.vocab_size, s.batch, rows),
            hidden,
            make.normal(s.vocab_size, s.hidden_size),
            norm,
            norm,
            1e-5,
        ),
        "draft_qkv_rope": (
            make.normal(s.batch, rows, 2 * s.hidden_size),
            make.weight(heads * s.head_dim, 2 * s.hidden_size),
            None,
            make.tensor(table.cos(), torch.float32),
            make.tensor(table.sin(), torch.float32),
            make.integers(0, length, s.batch, rows),
            *draft_caches,
            cache_rows,
            s.num_heads,
        ),
        "tree_attention": (
            make.normal(s.batch, s.num_heads, s.num_nodes, s.head_dim),
            *caches,
            context,
            random_ancestor_mask(s, make),
            s.head_dim**-0.5,
        ),
        "draft_output": (make.normal(s.batch, rows, width), make.weight(s.hidden_size, width), hidden, norm, 1e-5),
        "draft_mlp": (
            hidden,
            make.weight(2 * s.intermediate_size, s.hidden_size),
            make.weight(s.hidden_size, s.intermediate_size),
            hidden,
        ),
    }


def layer_inputs(s: Sizes, make: Maker) -> tuple[Any, ...]:
    """All layers of the target over its tree; states are kept of one boundary, if there is any."""
    heads, width, each = s.num_heads + 2 * s.num_kv_heads, s.num_heads * s.head_dim, range(s.num_layers)
    length = s.context_len + s.num_nodes
    table = torch.outer(torch.arange(length), 1e4 ** -torch.linspace(0, 1, s.head_dim // 2))
    context = make.tensor([s.context_len - b for b in range(s.batch)])
    rows = context[:, None] + make.tensor(torch.arange(s.num_nodes))
    return (
        make.normal(s.batch, s.num_nodes, s.hidden_size),
        [make.normal(s.hidden_size) + 1 for _ in each],
        [make.weight(heads * s.head_dim, s.hidden_size) for _ in each],
        [make.weight(s.hidden_size, width) for _ in each],
        [make.normal(s.hidden_size) + 1 for _ in each],
        [make.weight(2 * s.intermediate_size, s.hidden_size) for _ in each],
        [make.weight(s.hidden_size, s.intermediate_size) for _ in each],
        make.normal(2, s.num_layers, s.batch, s.num_kv_heads, length, s.head_dim),
        rows,
        make.tensor(table.cos(), torch.float32),
        make.tensor(table.sin(), torch.float32),
        rows,
        context,
        random_ancestor_mask(s, make),
        s.num_heads,
        s.head_dim**-0.5,
        1e-5,
        [],
        [],
        [],
        [],
        list(each)[1:2],
    )


def vocabulary_inputs(s: Sizes, make: Maker) -> dict[str, tuple[Any, ...]]:
    """Ops over rows of logits; each request samples under its own settings."""
    d2t = make.tensor(torch.arange(s.draft_vocab_size) % 7)
    logits = make.normal(s.batch, s.num_nodes, s.vocab_size, scale=3.0)
    positions = make.tensor(s.context_len + torch.arange(s.batch * s.num_nodes).view(s.batch, s.num_nodes))
    requests = sampling_settings(s, make)
    head = make.weight(s.draft_vocab_size, s.hidden_size)
    rows = make.normal(s.batch * s.topk, s.draft_vocab_size, scale=3.0)
    return {
        "lm_head_topk": (
            make.normal(s.batch, s.topk, s.hidden_size),
            make.normal(s.hidden_size) + 1,
            1e-5,
            head,
            s.topk,
            d2t,
        ),
        "topk_logprobs": (rows, s.topk, d2t),
        "sample_tokens": (logits, positions, *requests),
        "gumbel_noise": (requests[0], positions, s.vocab_size, 0),
    }


def sampling_settings(s: Sizes, make: Maker) -> list[Tensor]:
    """seed, temperature, top_k, top_p, min_p: [batch] each; greedy, plain and filtered requests in turn."""
    every = [(0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (0.7, 20, 0.9, 0.0), (1.3, 0, 0.8, 0.02)]
    columns = zip(*[every[b % len(every)] for b in range(s.batch)], strict=True)
    dtypes = (torch.float32, torch.int32, torch.float32, torch.float32)
    seed = make.tensor([2**40 + b for b in range(s.batch)], torch.int64)
    return [seed, *(make.tensor(column, dtype) for column, dtype in zip(columns, dtypes, strict=True))]


def rejection_inputs(s: Sizes, make: Maker) -> dict[str, tuple[Any, ...]]:
    """Drawing children, and verifying a tree of them; the first child of every other request's nodes is fixed."""
    d2t = make.tensor(torch.arange(s.draft_vocab_size) // 3)
    draft_logits = make.normal(s.batch, s.num_nodes, s.draft_vocab_size, scale=3.0)
    target_logits = make.normal(s.batch, s.num_nodes, s.vocab_size)
    node_ids = make.tensor(torch.arange(s.num_nodes).expand(s.batch, -1).contiguous())
    parents = [random_parents(s.num_nodes, s.max_depth) for _ in range(s.batch)]
    num_children = torch.tensor([[row.count(node) for node in range(s.num_nodes)] for row in parents])
    num_fixed = num_children.clamp(max=1) * (torch.arange(s.batch)[:, None] % 2)
    draft_tokens = make.integers(0, s.vocab_size, s.batch, s.num_nodes)
    if make.device != "meta":
        token_ids = torch.arange(s.draft_vocab_size, device=make.device) + d2t
        target_logits[..., token_ids] += draft_logits
        noise = -torch.rand(draft_logits.shape).log().log().neg().to(make.device)
        order = (draft_logits + noise).argsort(-1, descending=True)
        for b, row in enumerate(parents):
            for node, parent in enumerate(row[1:], 1):
                draft_tokens[b, node] = token_ids[order[b, parent, row[:node].count(parent)]]
    context = make.tensor([s.context_len - b for b in range(s.batch)])
    requests = sampling_settings(s, make)
    counts, fixed = make.tensor(num_children.clamp(max=s.topk)), make.tensor(num_fixed)
    return {
        "sample_children": (draft_logits, node_ids, counts, context, *requests, s.topk, d2t, fixed),
        "verify_rejection": (
            target_logits,
            draft_logits,
            draft_tokens,
            make.tensor(parents),
            context,
            *requests,
            d2t,
            fixed,
            s.max_depth,
        ),
    }


def tree_inputs(s: Sizes, make: Maker) -> dict[str, tuple[Any, ...]]:
    """Growing, cutting, walking and committing a tree."""
    slots = 1 + s.topk + (s.max_depth - 1) * s.topk**2
    words = -(-s.max_depth * s.topk // 64)
    parent = make.tensor([random_parents(s.num_nodes, s.max_depth) for _ in range(s.batch)])
    history_parents = make.tensor([random_parents(slots, s.max_depth) for _ in range(s.batch)])
    context = make.tensor([s.context_len - b for b in range(s.batch)])
    length = make.tensor([b % (s.max_depth + 1) for b in range(s.batch)])
    steps = torch.arange(s.max_depth + 1).expand(s.batch, -1)
    accept_index = make.tensor(
        torch.where(steps <= torch.arange(s.batch)[:, None] % (s.max_depth + 1), steps * 3 // 2, -1)
    )
    buffer = make.normal(2 * s.num_layers, s.batch, s.num_kv_heads, s.context_len + s.num_nodes, s.head_dim)
    single = Maker(torch.float32, make.device)
    history = [single.normal(s.batch, slots), make.integers(0, 9, s.batch, slots), history_parents]
    return {
        "expand_tree": (
            single.normal(s.batch, s.topk),
            make.integers(0, slots, s.batch, s.topk),
            make.tensor(torch.ones(s.batch, s.topk, words), torch.int64),
            single.normal(s.batch, s.topk, s.topk),
            make.integers(0, s.vocab_size, s.batch, s.topk, s.topk),
            *(t.clone() for t in history),
            1 + s.topk,
            s.topk,
        ),
        "build_tree": (*history, context, s.num_nodes),
        "verify_tree": (
            make.integers(0, 3, s.batch, s.num_nodes),
            parent,
            make.integers(-1, 3, s.batch, s.num_nodes),
            s.max_depth,
        ),
        "write_kv": (
            *(make.normal(s.batch, s.num_nodes, s.num_kv_heads, s.head_dim).transpose(1, 2) for _ in range(2)),
            *(buffer[layer].clone() for layer in range(2)),
            context[:, None] + make.tensor(torch.arange(s.num_nodes)),
        ),
        "compact_kv": (list(buffer.unbind(0)), accept_index, length, context),
        "commit_step": (
            make.integers(0, s.vocab_size, s.batch, s.num_nodes),
            accept_index,
            length,
            make.integers(0, s.vocab_size, s.batch),
            make.normal(s.batch, s.num_nodes, 3 * s.hidden_size),
            context,
        ),
    }


def random_parents(nodes: int, max_depth: int) -> list[int]:
    """A tree in level order as parent indices, not deeper than max_depth."""
    parents, depth = [-1], [0]
    while len(parents) < nodes:
        up = int(torch.randint(len(parents), ()))
        if depth[up] < max_depth:
            parents.append(up)
            depth.append(depth[up] + 1)
    return parents


def random_ancestor_mask(s: Sizes, make: Maker) -> Tensor:
    """[batch, num_nodes, words] int64 of random trees."""
    masks = [ancestor_words(random_parents(s.num_nodes, s.max_depth), make.device) for _ in range(s.batch)]
    return torch.stack(masks)
