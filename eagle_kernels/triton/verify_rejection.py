"""verify_rejection in Triton: programs find the laws of all rows, then one walks each request's tree.

The walk goes down, and for traversal up again, with a few numbers a node in vectors over the nodes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of, most_warps
from eagle_kernels.triton.common.ranking import key_id, key_value
from eagle_kernels.triton.common.residual import (
    EXCLUDED,
    NEVER,
    POSSIBLE,
    SUBTRACTED,
    coin,
    draw,
    load_law,
    pick,
    residual_at,
    totals,
)
from eagle_kernels.triton.common.row_filter import find_keep, row_top

BLOCK = 2048
LAW_BLOCK = 4096  # four logits a thread of the largest program: a row is one program's alone


# grid: (batch * nodes); for rows that are read: the maximum (infinite if invalid) and what the filters keep
@triton.jit
def find_laws_kernel(
    logits_ptr,
    parent_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    max_ptr,
    floor_ptr,
    first_ptr,
    num_nodes,
    vocabulary,
    batch_stride,
    row_stride,
    ONLY_PARENTS: tl.constexpr,
    NODES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    b, node = place // num_nodes, place % num_nodes
    temperature = tl.load(temperature_ptr + b)
    read = node >= 0
    if ONLY_PARENTS:
        each = tl.arange(0, NODES)
        parent = tl.load(parent_ptr + b * num_nodes + each, mask=each < num_nodes, other=-1)
        read = (tl.max((parent == node).to(tl.int32)) > 0) & (temperature > 0)
    if read:
        row_ptr = logits_ptr + b * batch_stride + node * row_stride
        best = row_top(row_ptr, vocabulary, BLOCK)
        row_max, first_token = key_value(best), key_id(best)
        floor = tl.zeros_like(first_token)
        if (tl.abs(row_max) != float("inf")) & (temperature > 0):
            top_k, top_p, min_p = tl.load(top_k_ptr + b), tl.load(top_p_ptr + b), tl.load(min_p_ptr + b)
            floor, first_token = find_keep(row_ptr, vocabulary, top_k, top_p, min_p, row_max, temperature, BLOCK)
        tl.store(max_ptr + place, row_max)
        tl.store(floor_ptr + place, floor)
        tl.store(first_ptr + place, first_token)


# grid: (blocks of the draft's vocabulary); from a target token to the draft's id of it
@triton.jit
def invert_map_kernel(d2t_ptr, inverse_ptr, draft_vocabulary, vocabulary, BLOCK: tl.constexpr):
    draft_token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    token = draft_token + tl.load(d2t_ptr + draft_token, mask=draft_token < draft_vocabulary, other=0)
    inside = (draft_token < draft_vocabulary) & (token >= 0) & (token < vocabulary)
    tl.store(inverse_ptr + token, draft_token, mask=inside)


@triton.jit
def link_nodes(given, num_nodes, max_depth, NODES: tl.constexpr):
    """Parents and depths of the nodes that hang together and are not too deep; parent -1 for all others."""
    node = tl.arange(0, NODES)
    parent, depth = tl.full((NODES,), -1, tl.int32), tl.zeros((NODES,), tl.int32)
    for n in range(1, num_nodes):
        above = pick(given, n, NODES)
        depth_above = pick(depth, above, NODES)
        linked = (above >= 0) & (above < n) & (depth_above < max_depth) & ((above == 0) | (depth_above > 0))
        parent = tl.where((node == n) & linked, above, parent)
        depth = tl.where((node == n) & linked, depth_above + 1, depth)
    return parent, depth


@triton.jit
def store_path(index_ptr, length_ptr, last, parent, depth, b, max_depth, NODES: tl.constexpr, PATH: tl.constexpr):
    """The nodes from the root to the last accepted one, then -1."""
    place = tl.arange(0, PATH)
    path = tl.full((PATH,), -1, tl.int32)
    length = pick(depth, last, NODES)
    step = length
    while step >= 0:
        path = tl.where(place == step, last, path)
        last = pick(parent, last, NODES)
        step -= 1
    tl.store(index_ptr + b * (max_depth + 1) + place, path, mask=place <= max_depth)
    tl.store(length_ptr + b, length)


# grid: (batch)
@triton.jit
def verify_kernel(
    target_ptr,
    draft_ptr,
    target_max_ptr,
    target_floor_ptr,
    target_first_ptr,
    draft_max_ptr,
    draft_floor_ptr,
    draft_first_ptr,
    token_ptr,
    parent_ptr,
    fixed_ptr,
    context_ptr,
    seed_ptr,
    temperature_ptr,
    d2t_ptr,
    inverse_ptr,
    index_ptr,
    length_ptr,
    bonus_ptr,
    num_nodes,
    vocabulary,
    draft_vocabulary,
    max_depth,
    target_batch_stride,
    target_row_stride,
    draft_batch_stride,
    draft_row_stride,
    TRAVERSAL: tl.constexpr,
    NODES: tl.constexpr,
    PATH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    node, base = tl.arange(0, NODES), b * num_nodes
    target_ptr, draft_ptr = target_ptr + b * target_batch_stride, draft_ptr + b * draft_batch_stride
    draft_token = tl.load(token_ptr + base + node, mask=node < num_nodes, other=-1)
    num_fixed = tl.load(fixed_ptr + base + node, mask=node < num_nodes, other=0)
    given = tl.load(parent_ptr + base + node, mask=node < num_nodes, other=-1)
    seed, context_len, temperature = tl.load(seed_ptr + b), tl.load(context_ptr + b), tl.load(temperature_ptr + b)
    parent, depth = link_nodes(given, num_nodes, max_depth, NODES)
    state = tl.zeros((NODES,), tl.int32)
    owed, taken = tl.zeros((NODES,), tl.float32), tl.zeros((NODES,), tl.float32)
    reach = tl.full((NODES,), 1.0, tl.float64)  # TRAVERSAL: probability of acceptance, given how the path fared

    here = tl.full((), 0, tl.int32)
    tested = here  # the last child that was tested
    rejected = here - 1  # that child, while its rejection is being worked out
    bonus_token = here - 1
    walking = here == 0
    while walking:
        # the node's laws; its fixed children leave the proposal
        target_row, draft_row = here.to(tl.int64) * target_row_stride, here.to(tl.int64) * draft_row_stride
        target_state = target_max_ptr, target_floor_ptr, target_first_ptr
        draft_state = draft_max_ptr, draft_floor_ptr, draft_first_ptr
        target = load_law(target_ptr + target_row, vocabulary, target_state, base + here, temperature)
        draft = load_law(draft_ptr + draft_row, draft_vocabulary, draft_state, base + here, temperature)
        mine = parent == here
        fixed = mine & (tl.cumsum(mine.to(tl.int32)) <= tl.where(temperature <= 0, NODES, pick(num_fixed, here, NODES)))
        state = tl.where(fixed, EXCLUDED, state)
        sampled = mine & (fixed == 0)
        valid = tl.abs(target[2]) != float("inf")
        tests = valid & (tl.max(sampled.to(tl.int32)) > 0) & (tl.abs(draft[2]) != float("inf"))
        law_total, proposal_total = tl.full((), NEVER, tl.float64), tl.full((), NEVER, tl.float64)
        if tests:
            children = parent, draft_token, state, owed, taken
            law_total, proposal_total = totals(target, draft, d2t_ptr, inverse_ptr, here, children, NODES, BLOCK)

        # what the rejection of a child left; if nothing, the two laws agreed up to rounding
        following = tl.full((), NODES, tl.int32)
        if rejected >= 0:
            scale = pick(reach, here, NODES)
            subtracted = pick(state, rejected, NODES) == SUBTRACTED
            left = tl.where(subtracted, tl.exp(law_total), 0.0)
            if TRAVERSAL:
                log_scale = tl.log(tl.where(scale > 0, scale, 1.0))
                scale = tl.where(scale < 1, left / tl.where(scale < 1, left + 1.0 - scale, 1.0), 1.0)
                reach = tl.where(node == here, scale, reach)
                if subtracted & (left <= 0):
                    state = tl.where(node == rejected, EXCLUDED, state)
                    law_total = log_scale - pick(owed, rejected, NODES)
            elif left <= 0:
                following = rejected
            rejected = here * 0 - 1

        # the next child that the draft can have drawn, and its law(x) / proposal(x)
        child = tl.full((), NODES, tl.int32)
        ratio = tl.zeros((), tl.float64)
        if (following == NODES) & (proposal_total > POSSIBLE):
            child = tl.min(tl.where(sampled & (node > tested), node, NODES))
            searching = child < NODES
            while searching:
                token = pick(draft_token, child, NODES) + tl.arange(0, 1)
                token = tl.where(token >= 0, token, vocabulary)
                children = parent, draft_token, state, owed, taken
                law, proposal = residual_at(token, target, draft, inverse_ptr, here, children, NODES)
                ratio = tl.exp((tl.max(law) - law_total) - (tl.max(proposal) - proposal_total))
                searching = (tl.max(proposal) <= POSSIBLE) | (tl.max(token) >= vocabulary)
                if searching:
                    child = tl.min(tl.where(sampled & (node > child), node, NODES))
                    searching = child < NODES

        if child < NODES:
            # test it, or its subtree before it
            tested = child
            owed = tl.where(node == child, (-law_total).to(tl.float32), owed)
            taken = tl.where(node == child, (-proposal_total).to(tl.float32), taken)
            if TRAVERSAL:
                scale = pick(reach, here, NODES)
                log_scale = tl.log(tl.where(scale > 0, scale, 1.0))
                owed = tl.where(node == child, (log_scale - law_total).to(tl.float32), owed)
                reach = tl.where(node == child, tl.where(scale * ratio < 1, scale * ratio, 1.0), reach)
                following = child
            elif coin(seed, context_len, child, ratio):
                following = child
            else:
                state = tl.where(node == child, SUBTRACTED, state)
                rejected = child
        elif following == NODES:
            accepted = here >= 0
            if TRAVERSAL:
                accepted = (here == 0) | coin(seed, context_len, here, pick(reach, here, NODES))
            if accepted:
                # the token after it; a fixed child that holds it goes on
                walking = here < 0
                if valid:
                    bonus_token = target[4]  # at temperature 0
                    if temperature > 0:
                        children = parent, draft_token, state, owed, taken
                        bonus_token = draw(
                            target, draft, tests, inverse_ptr, here, children, seed, context_len, NODES, BLOCK
                        )
                    following = tl.min(tl.where(fixed & (draft_token == bonus_token), node, NODES))
                    walking = following < NODES
            else:
                # back to the parent
                rejected, tested = here, here
                here = pick(parent, here, NODES)
                state = tl.where(node == rejected, tl.where(pick(reach, here, NODES) > 0, SUBTRACTED, EXCLUDED), state)
        if following < NODES:
            here, tested, rejected = following, following, following * 0 - 1
    store_path(index_ptr, length_ptr, here, parent, depth, b, max_depth, NODES, PATH)
    tl.store(bonus_ptr + b, bonus_token)


def verify_rejection(
    target_logits: Tensor,
    draft_logits: Tensor,
    draft_tokens: Tensor,
    parent: Tensor,
    num_fixed: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    d2t: Tensor | None,
    max_depth: int,
    traversal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_nodes, vocabulary = target_logits.shape
    draft_vocabulary = draft_logits.shape[2]
    parent, nodes = parent.contiguous(), block_of(num_nodes)
    accept_index = draft_tokens.new_empty(batch, max_depth + 1)
    accept_length, bonus_token = draft_tokens.new_empty(batch), draft_tokens.new_empty(batch)
    if not batch:
        return accept_index, accept_length, bonus_token
    inverse = None
    if d2t is not None:
        inverse = torch.full((vocabulary,), draft_vocabulary, dtype=torch.int32, device=d2t.device)
        invert_map_kernel[(triton.cdiv(draft_vocabulary, BLOCK),)](
            d2t, inverse, draft_vocabulary, vocabulary, BLOCK=BLOCK
        )
    laws = []
    for logits, only_parents in ((target_logits, False), (draft_logits, True)):
        row_max = torch.full((batch, num_nodes), torch.inf, device=parent.device)
        floor, first_token = torch.empty_like(parent), torch.empty_like(parent)
        find_laws_kernel[(batch * num_nodes,)](
            logits, parent, temperature, top_k, top_p, min_p, row_max, floor, first_token, num_nodes, logits.shape[2],
            *logits.stride()[:2], ONLY_PARENTS=only_parents, NODES=nodes, BLOCK=LAW_BLOCK, num_warps=most_warps(),
            enable_fp_fusion=False,
        )  # fmt: skip
        laws += [row_max, floor, first_token]
    verify_kernel[(batch,)](
        target_logits, draft_logits, *laws, draft_tokens.contiguous(), parent, num_fixed.contiguous(), context_len,
        seed, temperature, d2t, inverse, accept_index, accept_length, bonus_token, num_nodes, vocabulary,
        draft_vocabulary, max_depth, *target_logits.stride()[:2], *draft_logits.stride()[:2], TRAVERSAL=traversal,
        NODES=nodes, PATH=block_of(max_depth + 1), BLOCK=BLOCK, num_warps=16, enable_fp_fusion=False,
    )  # fmt: skip
    return accept_index, accept_length, bonus_token
