"""tree_attention beside torch (SDPA with a mask, with heads folded into rows, flex attention) and our Triton kernel."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import eagle_kernels
from bench.bench_tree_attention import case
from bench.case import Call, compiled
from bench.gpu.rows import DeviceMaker, Rows, in_turn, sets_of
from eagle_decoding.floor.work import Work
from eagle_decoding.numerics.cases import Sizes
from eagle_kernels.reference.ancestor_mask import unpack

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
TREE = 60  # nodes
FLEX_CONTEXT = 8192  # alone: flex attention compiles anew for every mask
ALIGNED = 8  # elements: rows of an additive mask that starts at their multiples are not copied by SDPA


def add_attention(rows: Rows, sizes: Sizes) -> None:
    """A row for one case; rivals that compile or tune every shape anew take part in that of the tree only."""
    make = DeviceMaker(torch.bfloat16, rows.watch.device)
    measured = case(sizes, make)
    query, (mask, scale) = measured.arguments[0], measured.arguments[4:]
    visible = visible_keys(sizes, mask)
    sets = sets_of(measured.arguments, measured.bytes)
    bare = [arguments[:3] for arguments in sets]
    ways: dict[str, Callable[[], Attention]] = {
        "sdpa": lambda: sdpa(visible, scale),
        "sdpa, heads folded": lambda: folded_sdpa(visible, scale, sizes.num_heads // sizes.num_kv_heads, query.dtype),
    }
    if sizes.num_nodes == TREE and sizes.context_len == FLEX_CONTEXT:
        ways["flex"] = lambda: flex(visible, sizes, scale, rows.watch.device)
    rivals = {name: calls_of(make_way, bare) for name, make_way in ways.items()}
    if sizes.num_nodes == TREE and rows.watch.device == "cuda":
        rivals["ours in Triton"] = lambda: in_turn(partial(eagle_kernels.tree_attention, backend="triton"), sets)
    rows.add(
        "tree_attention",
        in_turn(eagle_kernels.tree_attention, sets),
        Work(measured.bytes, measured.flops),
        rivals,
        batch=sizes.batch,
        context=sizes.context_len,
        nodes=sizes.num_nodes,
        rows_per_key_head=sizes.num_nodes * sizes.num_heads // sizes.num_kv_heads,
        head_dim=sizes.head_dim,
    )


def calls_of(make_way: Callable[[], Attention], sets: Sequence[Sequence[Any]]) -> Callable[[], list[Call]]:
    return lambda: in_turn(make_way(), sets)


def visible_keys(sizes: Sizes, mask: Tensor) -> Tensor:
    """[batch, nodes, context + nodes] bool: the whole context, then each node's ancestors and itself."""
    prefix = torch.ones(len(mask), sizes.num_nodes, sizes.context_len, dtype=torch.bool, device=mask.device)
    return torch.cat([prefix, unpack(mask)[:, :, : sizes.num_nodes]], dim=2)


def sdpa(visible: Tensor, scale: float) -> Attention:
    """With a boolean mask, made once for all layers; on Hopper torch prefers cuDNN's kernel, which shares key heads."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = scaled_dot_product_attention(query, key, value, visible[:, None], scale=scale, enable_gqa=True)
        return output.transpose(1, 2)

    return attend


def folded_sdpa(visible: Tensor, scale: float, group: int, dtype: torch.dtype) -> Attention:
    """The query heads of a key head become rows, for kernels that would ask for copies of the keys."""
    batch, nodes, keys = visible.shape
    padded = -(-keys // ALIGNED) * ALIGNED
    bias = torch.full((batch, 1, group * nodes, padded), -math.inf, dtype=dtype, device=visible.device)[..., :keys]
    bias.masked_fill_(visible.repeat(1, group, 1)[:, None], 0)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        folded = query.reshape(batch, -1, group * nodes, query.shape[-1])
        output = scaled_dot_product_attention(folded, key, value, bias, scale=scale)
        return output.reshape(batch, -1, nodes, query.shape[-1]).transpose(1, 2)

    return attend


def flex(visible: Tensor, sizes: Sizes, scale: float, device: str) -> Attention:
    """Compiled for the shape, with the blocks that the tree's mask leaves; as it comes on a CPU.

    Its kernel for short queries has no configuration where the rows of a key head outnumber a block's, as a tree's do.
    """
    context, nodes = sizes.context_len, sizes.num_nodes
    tree = visible[:, :, context:].contiguous()

    def sees(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return (key < context) | tree[batch, row.clamp(max=nodes - 1), (key - context).clamp(0, nodes - 1)]

    blocks = create_block_mask(sees, len(tree), None, nodes, context + nodes, device=device)
    attention = compiled(flex_attention) if device == "cuda" else flex_attention

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output: Any = attention(
            query, key, value, block_mask=blocks, scale=scale, enable_gqa=True, kernel_options={"BACKEND": "TRITON"}
        )
        return output.transpose(1, 2)

    return attend
