"""Draft forwards whose ops follow right after one another give the bits of forwards with a pause after every op.

On a GPU from sm_90 on, the next kernel takes its place while the last one ends: one that read before it has waited
would show here.
"""

from collections.abc import Callable

import pytest
import torch
from compare import assert_bitwise
from conftest import DEVICES
from draft_head import EPS, DraftHead
from torch import Tensor
from trees import random_tree_mask

import eagle_kernels

ROUNDS = 8


def forwards(head: DraftHead, mask: Tensor, pause: Callable[[], None]) -> list[Tensor]:
    """ROUNDS forwards of one layer, each of which reads what the one before wrote; returns all that was computed."""
    batch, rows, hidden, size, device = head.batch, head.rows, head.hidden, head.head_dim, head.device
    outputs = (head.heads + 2 * head.kv_heads) * size
    qkv, output = head.weight(outputs, 2 * hidden), head.weight(hidden, head.heads * size)
    gate_up, down = head.weight(2 * head.intermediate, hidden), head.weight(hidden, head.intermediate)
    embedding, lm_head, norm = (
        head.random(head.vocabulary, hidden),
        head.weight(head.vocabulary, hidden),
        head.random(hidden),
    )
    rope = [head.random(head.positions, size // 2).float() for _ in range(2)]
    caches = [head.random(batch, head.kv_heads, head.cache_length, size) for _ in range(2)]
    token_ids, state = head.integers(0, head.vocabulary, batch, rows), head.hidden_states()
    positions = head.integers(0, head.positions, batch, rows)
    cache_rows = torch.arange(rows, dtype=torch.int32, device=device).repeat(batch, 1) + 20
    context_len = torch.full((batch,), 20, dtype=torch.int32, device=device)
    computed: list[Tensor] = []

    def keep(results: Tensor | tuple[Tensor, ...]) -> Tensor:
        pause()
        results = (results,) if isinstance(results, Tensor) else results
        computed.extend(results)
        return results[0]

    for _ in range(ROUNDS):
        x = keep(eagle_kernels.draft_input(token_ids, state, embedding, norm, norm, EPS))
        query = keep(eagle_kernels.draft_qkv_rope(x, qkv, None, *rope, positions, *caches, cache_rows, head.heads))
        attention = keep(eagle_kernels.tree_attention(query, *caches, context_len, mask, size**-0.5))
        residual = keep(eagle_kernels.draft_output(attention.flatten(2), output, state, norm, EPS))
        state = keep(eagle_kernels.draft_mlp(computed[-1], gate_up, down, residual))
        keep(eagle_kernels.lm_head_topk(state, norm, EPS, lm_head, 1))
        token_ids = computed[-2][..., 0]
    return [*computed, *caches]


def without_pause() -> None:
    pass


def hold(device: str) -> None:
    """Keeps a GPU busy until all forwards are handed over: Python is slower than the kernels, which would not meet."""
    if device == "cuda":
        torch.cuda._sleep(200_000_000)  # cycles, a tenth of a second


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_pauses_between_ops_change_nothing(device, dtype):
    sizes = {"hidden": 512, "heads": 4, "head_dim": 64, "intermediate": 1024, "vocabulary": 4096}
    pause = torch.cuda.synchronize if device == "cuda" else without_pause
    mask = random_tree_mask(2, 5).to(device)
    expected = forwards(DraftHead(dtype, device, **sizes), mask, pause)
    for attempt in range(3):
        hold(device)
        actual = forwards(DraftHead(dtype, device, **sizes), mask, without_pause)
        for i, pair in enumerate(zip(actual, expected, strict=True)):
            assert_bitwise(*pair, f"tensor {i} of attempt {attempt}")
    assert all(tensor.float().isfinite().all() for tensor in expected)
