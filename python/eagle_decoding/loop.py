"""Speculative decoding: draft a tree, verify it in one forward, keep the path that the target would have taken."""

from functools import partial

import torch
from torch import Tensor

from eagle_decoding.cache import TreeCache
from eagle_decoding.config import MAX_NODES
from eagle_decoding.drafts import Commit, Draft
from eagle_decoding.graph import replay_rounds
from eagle_decoding.memory import Memory
from eagle_decoding.output import Output
from eagle_decoding.rounds import State, one_round, receive
from eagle_decoding.sampling import NodeSampler
from eagle_decoding.stats import Stats
from eagle_decoding.target import Target
from eagle_decoding.tree import root_only


@torch.inference_mode()
def decode(
    target: Target,
    draft: Draft,
    sampler: NodeSampler,
    output: Output,
    prompt: Tensor,
    lengths: Tensor,
    stats: Stats,
    memory: Memory | None = None,
) -> None:
    """Fills `output` with the target's own continuation of each prompt.

    A round drafts a tree on the last committed token (its root), runs the target once over all nodes, chooses the token
    after each node, and walks from the root as long as a child holds the chosen token. The text is that of plain
    decoding whatever was drafted: only the number of rounds depends on the draft. Trees with sampled children are
    verified by rejection sampling instead: then the text has the law of plain decoding.

    prompt:  [batch, tokens] int64, right-padded
    lengths: [batch] int32, real tokens of each prompt
    memory:  what replays of a captured round work on; None runs rounds one by one
    """
    cache = target.new_cache(len(prompt)) if memory is None else memory.cache
    draft.start(prompt, lengths, sampler.params)
    with stats.phase("prefill"):
        if memory is not None:
            memory.make_room(prompt.shape[1], output.max_new_tokens)
        cache.buffer.reserve(prompt.shape[1] + MAX_NODES)  # with the first tree: a long cache is not to be copied
        state = prefill(target, sampler, output, prompt, lengths, cache)
    run = partial(one_round, target, draft, sampler, output, cache)
    if memory is not None and not output.done:
        with stats.phase("launch"):
            memory.rounds.begin(run, state, stats.phase)
        del state  # the prompt's features may take as much memory as its cache
        replay_rounds(memory.rounds, output, stats)
    while not output.done:
        outcome = run(state, stats.phase)
        with stats.phase("output"):
            accepted = outcome.verified.accept_length.tolist()
            receive(outcome.emitted.tolist(), accepted, output, stats)
        stats.last_round = outcome.verified
        following, active = outcome.state, output.active_rows()
        if len(active) < len(accepted):
            following = following.holding(torch.tensor(output.finished, device=prompt.device), state)
        state = following.narrowed(1 + max((accepted[b] for b in active), default=0))


def prefill(
    target: Target, sampler: NodeSampler, output: Output, prompt: Tensor, lengths: Tensor, cache: TreeCache
) -> State:
    """Runs the prompts and chooses each request's first token."""
    prompted = target.prefill(prompt, lengths, cache)
    last_token = prompt.gather(1, lengths.long()[:, None] - 1).squeeze(1).int()
    first_token = sampler.choose(prompted.logits, root_only(last_token, lengths - 1), output).squeeze(1)
    output.push([[token] for token in first_token.tolist()])
    following = prompt.roll(-1, dims=1).int()
    following.scatter_(1, lengths.long()[:, None] - 1, first_token[:, None])
    positions = torch.arange(prompt.shape[1], dtype=torch.int32, device=prompt.device).expand_as(following)
    commit = Commit(
        tokens=following,
        features=prompted.features,
        position_ids=positions.contiguous(),
        context_len=torch.zeros_like(lengths),
        num_rows=lengths,
        committed=prompt.shape[1],
    )
    return State(commit, first_token, lengths)
