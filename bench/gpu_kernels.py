"""Times the kernels of a decoding round on a GPU against the time their bytes need, and torch's own way beside them.

python -m bench.gpu_kernels results.json
"""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

import eagle_kernels
from bench.shapes import MODELS, ModelShape

LLAMA = MODELS["Llama-3.1-8B"]
DTYPE = torch.bfloat16
CACHED_BYTES = 256 << 20  # inputs in turn exceed this, so that none is found in the second-level cache
DRAFT_ROWS, NUM_NODES = 10, 60
Call = Callable[[], object]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=DTYPE)


def integers(value: int, *shape: int) -> Tensor:
    return torch.full(shape, value, device="cuda", dtype=torch.int32)


def copies_for(num_bytes: int) -> int:
    """How many sets of inputs of this size to go through in turn."""
    return max(2, -(-CACHED_BYTES // num_bytes))


def seconds(calls: Sequence[Call], repeats: int = 20) -> float:
    """Median time of one call: all of them captured into a graph, which is replayed between two events."""
    for call in calls:
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000 / len(calls))
    return statistics.median(times[3:])


def memory_bandwidth() -> float:
    """Bytes a second of a large device-to-device copy, read and written."""
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * source.nbytes / seconds([lambda: target.copy_(source)])


def chain_mask(num_nodes: int) -> Tensor:
    """[1, N, 1] int64: node i sees nodes 0..i."""
    return torch.tensor([(1 << (i + 1)) - 1 for i in range(num_nodes)], device="cuda")[None, :, None]


def attention_calls(batch: int, context: int, model: ModelShape) -> tuple[list[Call], list[Call], int]:
    """The op, SDPA with a boolean mask, and the bytes of one call."""
    length, heads, kv_heads, head_dim = context + 64, model.num_heads, model.num_kv_heads, model.head_dim
    num_bytes = 2 * batch * kv_heads * (context + NUM_NODES) * head_dim * DTYPE.itemsize
    mask = chain_mask(NUM_NODES).expand(batch, -1, -1).contiguous()
    context_len, scale = integers(context, batch), head_dim**-0.5
    prefix = torch.ones(NUM_NODES, context, dtype=torch.bool, device="cuda")
    visible = torch.cat([prefix, torch.ones(NUM_NODES, NUM_NODES, dtype=torch.bool, device="cuda").tril()], dim=1)
    ours, torchs = [], []
    for _ in range(copies_for(num_bytes)):
        query = random(batch, heads, NUM_NODES, head_dim)
        key, value = (random(batch, kv_heads, length, head_dim) for _ in range(2))
        rows = slice(0, context + NUM_NODES)

        def op(query: Tensor = query, key: Tensor = key, value: Tensor = value) -> Tensor:
            return eagle_kernels.tree_attention(query, key, value, context_len, mask, scale)

        def sdpa(query: Tensor = query, key: Tensor = key[:, :, rows], value: Tensor = value[:, :, rows]) -> Tensor:
            return scaled_dot_product_attention(query, key, value, visible, scale=scale, enable_gqa=True)

        ours.append(op)
        torchs.append(sdpa)
    return ours, torchs, num_bytes


def draft_forward(model: ModelShape, context: int) -> tuple[Call, int]:
    """One forward of an EAGLE-3 head over DRAFT_ROWS rows, and the bytes of its weights and cache."""
    hidden, heads, kv_heads, head_dim = model.hidden_size, model.num_heads, model.num_kv_heads, model.head_dim
    qkv = random((heads + 2 * kv_heads) * head_dim, 2 * hidden)
    output, gate_up = random(hidden, heads * head_dim), random(2 * model.intermediate_size, hidden)
    down, lm_head = random(hidden, model.intermediate_size), random(model.draft_vocab_size, hidden)
    embedding, norm = random(model.draft_vocab_size, hidden), random(hidden)
    caches = [random(1, kv_heads, context + 128, head_dim) for _ in range(2)]
    cos, sin = (torch.randn(context + 128, head_dim // 2, device="cuda") for _ in range(2))
    tokens, positions, context_len = integers(7, 1, DRAFT_ROWS), integers(context, 1, DRAFT_ROWS), integers(context, 1)
    rows = torch.arange(DRAFT_ROWS, device="cuda", dtype=torch.int32)[None] + context
    states, mask, eps = random(1, DRAFT_ROWS, hidden), chain_mask(DRAFT_ROWS), 1e-5

    def forward() -> object:
        x = eagle_kernels.draft_input(tokens, states, embedding, norm, norm, eps)
        query = eagle_kernels.draft_qkv_rope(x, qkv, None, cos, sin, positions, *caches, rows, heads)
        attention = eagle_kernels.tree_attention(query, *caches, context_len, mask, head_dim**-0.5)
        residual, normed = eagle_kernels.draft_output(attention.flatten(2), output, states, norm, eps)
        last = eagle_kernels.draft_mlp(normed, gate_up, down, residual)
        return eagle_kernels.lm_head_topk(last, norm, eps, lm_head, 10)

    weights = [qkv, output, gate_up, down, lm_head]
    return forward, sum(w.nbytes for w in weights) + 2 * kv_heads * context * head_dim * DTYPE.itemsize


def sampling_calls(temperature: float, model: ModelShape) -> tuple[list[Call], int]:
    """sample_tokens with top-k and top-p over all nodes, then the walk."""
    logits = [random(1, NUM_NODES, model.vocab_size) for _ in range(copies_for(NUM_NODES * model.vocab_size * 2))]
    seed, top_k = torch.zeros(1, dtype=torch.int64, device="cuda"), integers(50, 1)
    warmth, top_p, min_p = (torch.full((1,), x, device="cuda") for x in (temperature, 0.9, 0.0))
    tokens, positions = integers(5, 1, NUM_NODES), integers(1024, 1, NUM_NODES)
    parent = torch.arange(-1, NUM_NODES - 1, device="cuda", dtype=torch.int32)[None]

    def sample(row: Tensor) -> object:
        chosen = eagle_kernels.sample_tokens(row, positions, seed, warmth, top_k, top_p, min_p)
        return eagle_kernels.verify_tree(tokens, parent, chosen)

    return [lambda row=row: sample(row) for row in logits], logits[0].nbytes


def compaction_call(model: ModelShape) -> tuple[Call, int]:
    """Eight accepted rows, all layers of the target and one of the head."""
    caches = [random(1, model.num_kv_heads, 2048, model.head_dim) for _ in range(2 * (model.num_layers + 1))]
    accept_index = torch.arange(0, 18, 2, device="cuda", dtype=torch.int32)[None]
    accept_length, context_len = integers(8, 1), integers(1024, 1)
    num_bytes = 2 * len(caches) * 8 * model.num_kv_heads * model.head_dim * DTYPE.itemsize
    return lambda: eagle_kernels.compact_kv(caches, accept_index, accept_length, context_len), num_bytes


def linear_calls(rows: int, inner: int, outputs: int) -> tuple[list[Call], list[Call], int]:
    num_bytes = outputs * inner * DTYPE.itemsize
    weights, input = [random(outputs, inner) for _ in range(copies_for(num_bytes))], random(rows, inner)
    ours = [lambda w=w: eagle_kernels.linear(input, w) for w in weights]
    return ours, [lambda w=w: linear(input, w) for w in weights], num_bytes


class Results:
    """Rows of the report; prints each as it comes."""

    def __init__(self) -> None:
        self.bandwidth = memory_bandwidth()
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, calls: Sequence[Call], num_bytes: int, torchs: Sequence[Call] = (), **about: int) -> None:
        taken, floor = seconds(calls), num_bytes / self.bandwidth
        row = {"name": name, **about, "seconds": taken, "bytes": num_bytes, "floor_seconds": floor}
        row["times_floor"] = taken / floor
        if torchs:
            row["torch_seconds"] = seconds(torchs)
        self.rows.append(row)
        print(json.dumps(row))


def machine() -> dict[str, Any]:
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    state = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {"python": platform.python_version(), **eagle_kernels.info(), query: state}


def main(path: str) -> None:
    torch.manual_seed(0)
    results, before = Results(), machine()
    for batch in (1, 8):
        for context in (1024, 8192, 65536):
            ours, torchs, num_bytes = attention_calls(batch, context, LLAMA)
            flops = 4 * batch * NUM_NODES * LLAMA.num_heads * (context + NUM_NODES) * LLAMA.head_dim
            results.add("tree_attention", ours, num_bytes, torchs, batch=batch, context=context, flops=flops)
    for rows in (1, DRAFT_ROWS, NUM_NODES):
        for inner, outputs in ((4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096), (4096, 128256)):
            ours, torchs, num_bytes = linear_calls(rows, inner, outputs)
            results.add("linear", ours, num_bytes, torchs, rows=rows, inner=inner, outputs=outputs)
    forward, num_bytes = draft_forward(LLAMA, 1024)
    results.add("draft forward", [forward], num_bytes, rows=DRAFT_ROWS)
    for name, temperature in (("sample and walk", 0.8), ("greedy and walk", 0.0)):
        calls, num_bytes = sampling_calls(temperature, LLAMA)
        results.add(name, calls, num_bytes, nodes=NUM_NODES)
    call, num_bytes = compaction_call(LLAMA)
    results.add("compact_kv", [call], num_bytes, rows=8)
    report = {"machine": before, "after": machine(), "bytes_per_second": results.bandwidth, "kernels": results.rows}
    with open(path, "w") as file:
        json.dump(report, file, indent=2)


if __name__ == "__main__":
    main(sys.argv[1])
