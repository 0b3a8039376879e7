"""What a node's law still owes after its children were rejected, from the logits of any tokens: nothing is stored.

A residual is the chain of the rejections of a node's children so far, two numbers each. A law is (row pointer,
vocabulary, maximum, floor, first token, temperature), the children of all nodes are vectors over the nodes: (parent,
draft token, state, owed, taken).
"""

import triton
import triton.language as tl

from eagle_kernels.triton.common.elementary import exp, gumbel, log
from eagle_kernels.triton.common.philox import ACCEPT, BONUS, RESIDUAL, philox_bits
from eagle_kernels.triton.common.ranking import LOWEST, key_id, rank_key
from eagle_kernels.triton.common.row_filter import is_kept, load_logits, scaled

NEVER = tl.constexpr(-1e30)  # the log of what has no probability; finite, so that differences are defined
POSSIBLE = tl.constexpr(-5e29)  # above it a log-weight is one
OPEN, EXCLUDED, SUBTRACTED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # what a child did to its node's laws


@triton.jit
def pick(values, index, NODES: tl.constexpr):
    """values[index]; 0 outside."""
    return tl.sum(tl.where(tl.arange(0, NODES) == index, values, 0))


@triton.jit
def next_child(parent, here, after, NODES: tl.constexpr):
    """The first child of a node behind a given one, NODES if there is none."""
    node = tl.arange(0, NODES)
    return tl.min(tl.where((parent == here) & (node > after), node, NODES))


@triton.jit
def load_law(row_ptr, vocabulary, states, place, temperature):
    """A row's law; states: pointers to the maximum, the floor and the first token of every row."""
    max_ptr, floor_ptr, first_ptr = states
    row_max, floor, first_token = tl.load(max_ptr + place), tl.load(floor_ptr + place), tl.load(first_ptr + place)
    return row_ptr, vocabulary, row_max, floor, first_token, temperature


@triton.jit
def log_weights(law, token):
    """(logit - max) / temperature of what the filters keep; NEVER beyond the vocabulary."""
    row_ptr, vocabulary, row_max, floor, first_token, temperature = law
    logit = load_logits(row_ptr, token, vocabulary)
    score = tl.maximum(scaled(logit, row_max, temperature), NEVER)
    return tl.where(is_kept(logit, token, vocabulary, floor, first_token), score, NEVER)


@triton.jit
def from_target(inverse_ptr, token, vocabulary, draft_vocabulary):
    """The draft's id of target tokens; draft_vocabulary for those it does not have."""
    drafted = tl.minimum(token, draft_vocabulary)
    if inverse_ptr is not None:
        drafted = tl.load(inverse_ptr + token, mask=token < vocabulary, other=draft_vocabulary)
    return drafted


@triton.jit
def after_children(law, proposal, token, here, children, NODES: tl.constexpr):
    """The log-weights of a node's law and of its next child's at some tokens, after what its children did so far.

    A rejected child leaves max(p - q, 0), log p + log(1 - exp(log q - log p)), and is no longer proposed.
    """
    parent, draft_token, state, owed, taken = children
    child = next_child(parent, here, 0, NODES)
    while child < NODES:
        done = pick(state, child, NODES)
        if done == SUBTRACTED:
            log_p, log_q = law + pick(owed, child, NODES), proposal + pick(taken, child, NODES)
            share = 1.0 - exp(tl.minimum(log_q - log_p, 0.0))  # of p that is left
            left = (share > 0) & (log_p > POSSIBLE)
            law = tl.where(left, log_p + log(tl.where(left, share, 1.0)), NEVER)
        if done != OPEN:
            proposal = tl.where(token == pick(draft_token, child, NODES), NEVER, proposal)
        child = next_child(parent, here, child, NODES)
    return law, proposal


@triton.jit
def residual_at(token, target, draft, inverse_ptr, here, children, NODES: tl.constexpr):
    """after_children for target tokens, from their logits."""
    drafted = from_target(inverse_ptr, token, target[1], draft[1])
    return after_children(log_weights(target, token), log_weights(draft, drafted), token, here, children, NODES)


@triton.jit
def add_exponentials(top, total, log_weights):
    """A log-sum-exp goes on: the largest so far, and the float64 sum relative to it."""
    new_top = tl.maximum(top, tl.max(log_weights))
    total *= tl.exp((top - new_top).to(tl.float64))
    return new_top, total + tl.sum(exp(log_weights - new_top).to(tl.float64))


@triton.jit
def log_total_of(top, total):
    """float64; NEVER where nothing has a weight."""
    return tl.where(top > POSSIBLE, top.to(tl.float64) + tl.log(total), NEVER)


@triton.jit
def coin(seed, context_len, node, probability):
    """True with the given probability, by the node's own uniform."""
    bits = philox_bits(seed, context_len, ACCEPT, 0, node // 4 * 4, 4)
    word = tl.sum(tl.where(tl.arange(0, 4) == node % 4, bits.to(tl.float64), 0.0))
    return (word + 0.5) * 2.0**-32 < probability


@triton.jit
def totals(target, draft, d2t_ptr, inverse_ptr, here, children, NODES: tl.constexpr, BLOCK: tl.constexpr):
    """Log-sum-exps of a node's law and of its next child's."""
    top, total = tl.full((), NEVER, tl.float32), tl.zeros((), tl.float64)
    for start in range(0, target[1], BLOCK):
        law, _ = residual_at(start + tl.arange(0, BLOCK), target, draft, inverse_ptr, here, children, NODES)
        top, total = add_exponentials(top, total, law)
    law_total = log_total_of(top, total)
    top, total = tl.full((), NEVER, tl.float32), tl.zeros((), tl.float64)
    for start in range(0, draft[1], BLOCK):
        drafted = start + tl.arange(0, BLOCK)
        token = drafted
        if d2t_ptr is not None:
            token += tl.load(d2t_ptr + drafted, mask=drafted < draft[1], other=0)
        proposal = log_weights(draft, drafted)
        _, proposal = after_children(proposal, proposal, token, here, children, NODES)
        top, total = add_exponentials(top, total, proposal)
    return law_total, log_total_of(top, total)


@triton.jit
def draw(
    target, draft, tests, inverse_ptr, here, children, seed, context_len, NODES: tl.constexpr, BLOCK: tl.constexpr
):
    """A token of what is left of a node's law: the largest log-weight plus noise, ties to the lowest; -1 if nothing."""
    stream = tl.where(next_child(children[0], here, 0, NODES) < NODES, RESIDUAL, BONUS)
    keys = tl.full((BLOCK,), LOWEST, tl.int64)
    for start in range(0, target[1], BLOCK):
        token = start + tl.arange(0, BLOCK)
        law = log_weights(target, token)
        if tests:
            law, _ = residual_at(token, target, draft, inverse_ptr, here, children, NODES)
        score = law + gumbel(philox_bits(seed, context_len, stream, here, start, BLOCK))
        keys = tl.maximum(keys, tl.where(law > POSSIBLE, rank_key(score, token), LOWEST))
    best = tl.max(keys)
    return tl.where(best > LOWEST, key_id(best), -1)
