"""One round: a tree is drafted and verified, and what the target would have written of it is committed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.cache import TreeCache
from eagle_decoding.drafts import Commit, Draft
from eagle_decoding.output import Output
from eagle_decoding.sampling import NodeSampler
from eagle_decoding.stats import Round, Stats
from eagle_decoding.target import Target

Phase = Callable[[str], AbstractContextManager[None]]


class State(NamedTuple):
    """Where the requests of a batch stand between two rounds.

    commit:      what was committed last, which the draft has not taken in yet
    next_tokens: [batch] int32, the newest token of each request: the roots of the next trees
    context_len: [batch] int32, their positions
    """

    commit: Commit
    next_tokens: Tensor
    context_len: Tensor

    def narrowed(self, rows: int) -> "State":
        """Without the columns of the commit that are padding in every request, once the host knows `rows` of them."""
        commit, width = self.commit, self.commit.tokens.shape[1]
        return self._replace(
            commit=commit._replace(
                tokens=commit.tokens[:, :rows],
                features=commit.features[:, :rows],
                position_ids=commit.position_ids[:, :rows],
                committed=commit.committed - width + rows,
            )
        )

    def holding(self, ended: Tensor, before: "State") -> "State":
        """With the requests that ended where they stood before the round: they commit their newest token once more.

        So they take no more room in the caches.

        ended: [batch] bool
        """
        commit, once = self.commit, ended.int()
        return State(
            commit._replace(
                tokens=torch.where(ended[:, None], before.next_tokens[:, None], commit.tokens),
                position_ids=commit.position_ids - once[:, None],
                context_len=commit.context_len - once,
                num_rows=commit.num_rows.masked_fill(ended, 1),
            ),
            torch.where(ended, before.next_tokens, self.next_tokens),
            torch.where(ended, before.context_len, self.context_len),
        )


class Outcome(NamedTuple):
    """What a round leaves behind.

    verified: the tree and the path that was accepted
    emitted:  [batch, max_depth + 1] int32, the accepted drafts, the target's own next token, then padding; -1 where the
              target's logits were NaN
    state:    where the next round begins
    """

    verified: Round
    emitted: Tensor
    state: State


def untimed(phase: str) -> AbstractContextManager[None]:
    return nullcontext()


def one_round(
    target: Target,
    draft: Draft,
    sampler: NodeSampler,
    output: Output,
    cache: TreeCache,
    state: State,
    phase: Phase = untimed,
) -> Outcome:
    """Drafts a tree on the newest token, runs the target once over all nodes, and commits the path that it chose.

    With a draft that works on the device, and without logits processors, a round reads nothing back to the host, its
    shapes are the same every time, and all that it needs to know is in `state` and in the caches: it can be captured.
    """
    with phase("draft"):
        draft.extend(state.commit)
        tree = draft.propose(state.next_tokens, state.context_len)
    with phase("verify"):
        cache.buffer.reserve(state.commit.committed + tree.num_nodes)
        nodes = target.verify(tree, state.context_len, cache)
    with phase("sample"):
        accept_index, accept_length, bonus_token = sampler.verify(nodes.logits, tree, output)
    with phase("commit"):
        cache.compact(accept_index, accept_length, state.context_len)
        emitted, features, position_ids, context_len = eagle_kernels.commit_step(
            tree.draft_tokens, accept_index, accept_length, bonus_token, nodes.features, state.context_len
        )
    commit = Commit(
        tokens=emitted.clamp(min=0),
        features=features,
        position_ids=position_ids,
        context_len=state.context_len,
        num_rows=accept_length + 1,
        committed=state.commit.committed + emitted.shape[1],
    )
    return Outcome(
        Round(tree, accept_index, accept_length, bonus_token),
        emitted,
        State(commit, bonus_token.clamp(min=0), context_len),
    )


def receive(emitted: list[list[int]], accepted: list[int], output: Output, stats: Stats) -> None:
    """Hands a round's tokens to the output, and counts the round for the requests that were still at work.

    emitted: each request's tokens with padding; accepted: how many drafts are among them
    """
    active = output.active_rows()
    output.push([tokens[: n + 1] for tokens, n in zip(emitted, accepted, strict=True)])
    for b in active:
        stats.record_round(accepted[b])
