"""Auto mode: decides each round how deep to draft, how much of it to verify, and whether to draft at all."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, Draft
from eagle_decoding.drafts.calibration import Calibration
from eagle_decoding.drafts.costs import measure
from eagle_decoding.drafts.growth import GrowingDraft
from eagle_decoding.drafts.hybrid import HybridDraft
from eagle_decoding.drafts.policy import Policy
from eagle_decoding.drafts.trie import Trie, best, graft, to_draft_tree
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.target import Target
from eagle_decoding.tree import DraftTree, root_only

TREE = TreeConfig(num_nodes=24, max_depth=6, topk=4)  # bounds; the rounds decide what of it pays
READ_ROWS = 64  # of a prompt, for measuring
TEXT_TREE = TreeConfig(num_nodes=24, max_depth=16, topk=4)  # for methods whose depth costs no time


class AutoDraft:
    """Lets another method draft where that saves time; what it learns of costs and acceptance stays between requests.

    Verification is exact whatever is drafted, so these choices never change the text. They are made on the host, with
    one read-back of the drafted tree. Plain rounds leave their commits to the method's next turn.

    draft:     a method whose trees have node_scores; where it grows them level by level, their depth is chosen too
    num_nodes: the most nodes it drafts
    model:     the target, for measuring; decoding must run on it
    """

    def __init__(self, draft: Draft, num_nodes: int, model: PreTrainedModel):
        self.draft, self.num_nodes, self.model = draft, num_nodes, model
        self.feature_layers = draft.feature_layers
        self.grown = grown_part(draft)
        self.shape = self.grown.tree if self.grown else None
        self.calibration = Calibration()
        self.policies: dict[int, Policy] = {}  # by batch size
        self.usual_seconds: float | None = None  # in which the method takes in one round's commit

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        batch = len(prompt)
        if batch not in self.policies:
            costs = measure(Target(self.model), batch, self.num_nodes)
            self.policies[batch] = Policy(costs, self.shape.max_depth if self.shape else 1)
            self.policies[batch].observe_reading(READ_ROWS, self.seconds_to_read(READ_ROWS, params))
        self.policy = self.policies[batch]
        self.policy.begin()
        self.calibration.begin()
        self.policy.luck = self.calibration.luck
        self.pending: list[Commit] = []
        self.verified: list[Trie] = []
        self.proposed: tuple[float, int] | None = None
        self.draft.start(prompt, lengths, params)

    def seconds_to_read(self, rows: int, params: SamplingParams) -> float:
        """Measures how long the method takes in committed rows; the second of two passes counts."""
        batch, device = len(params.seed), self.model.device
        lengths = torch.full((batch,), rows, dtype=torch.int32, device=device)
        width = len(self.feature_layers) * self.model.config.hidden_size
        tokens = torch.zeros(batch, rows, dtype=torch.int32, device=device)
        features = torch.zeros(batch, rows, width, dtype=self.model.dtype, device=device)
        positions = torch.arange(rows, dtype=torch.int32, device=device).repeat(batch, 1)
        commit = Commit(tokens, features, positions, torch.zeros_like(lengths), lengths, rows)
        for _ in range(2):
            self.draft.start(tokens.long(), lengths, params)
            started = self.clock()
            self.draft.extend(commit)
        return self.clock() - started

    def extend(self, commit: Commit) -> None:
        """Learns from the round that ended, and keeps its commit for when the method drafts again."""
        emitted = commit.num_rows.tolist() if self.verified else [1]  # a plain round needs no read-back
        if self.proposed is not None:
            started, rows = self.proposed
            self.policy.costs.observe(rows, time.perf_counter() - started)
            self.policy.settle(rows, sum(emitted) / len(emitted))
        if self.verified:
            paths = [tokens[: n - 1] for tokens, n in zip(commit.tokens.tolist(), emitted, strict=True)]
            self.calibration.observe(outcomes(self.verified, paths), len(paths))
            self.policy.luck = self.calibration.luck
        self.pending.append(commit)
        self.usual = 1 if self.proposed is None else commit.tokens.shape[1]  # a prompt's commit is no usual one

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        depth = self.policy.depth(self.rows_pending() - self.usual)
        self.verified = self.drafted(depth, root_tokens, context_len) if depth else []
        tree = to_draft_tree(self.verified, context_len) if self.verified else root_only(root_tokens, context_len)
        self.proposed = time.perf_counter(), tree.num_nodes
        return tree

    def drafted(self, depth: int, root_tokens: Tensor, context_len: Tensor) -> list[Trie]:
        """What to verify of a tree of some depth: a trie per request, or nothing where no draft repays its row."""
        seconds = self.catch_up()
        started = self.clock()
        if self.grown and self.shape:
            self.grown.tree = shallower(self.shape, depth)
        tree = self.draft.propose(root_tokens, context_len)
        tries = [Trie(root, tree.num_nodes) for root in root_tokens.tolist()]
        graft(tree, tries)
        self.policy.observe_draft(depth, seconds + self.clock() - started)
        rows = self.policy.choose(self.expected(tries), depth)
        kept = [best(trie, rows) for trie in tries]
        self.policy.learn(self.levels(kept, depth))
        return kept if rows > 1 else []

    def catch_up(self) -> float:
        """Hands the method what was committed since it drafted last; returns the last round's share of the seconds.

        Commits of plain rounds, one row each, go together.
        """
        rows, started = self.rows_pending(), self.clock()
        for commit in joined(self.pending):
            self.draft.extend(commit)
        self.pending = []
        seconds = self.clock() - started
        if rows <= self.usual:
            self.usual_seconds = seconds
            return seconds
        last = min(seconds * self.usual / rows if self.usual_seconds is None else self.usual_seconds, seconds)
        self.policy.observe_reading(rows - self.usual, seconds - last)
        return last

    def rows_pending(self) -> int:
        return sum(commit.tokens.shape[1] for commit in self.pending)

    def clock(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()

    def expected(self, tries: list[Trie]) -> list[float]:
        """Entry n-1: expected accepted drafts of a request's best n rows, the root included; the mean over requests."""
        totals = [0.0] * max(len(trie) for trie in tries)
        for trie in tries:
            ranked = sorted((self.calibration.probability(score) for score in trie.scores[1:]), reverse=True)
            sums = list(accumulate(ranked, initial=0.0))
            for n in range(len(totals)):
                totals[n] += sums[min(n, len(ranked))] / len(tries)
        return totals

    def levels(self, tries: list[Trie], depth: int) -> list[float]:
        """Expected accepted drafts at each depth, the mean over requests; as one level where depth is not chosen."""
        sums = [0.0] * depth
        for trie in tries:
            for level, score in zip(trie.depth[1:], trie.scores[1:], strict=True):
                sums[min(level, depth) - 1] += self.calibration.probability(score) / len(tries)
        return sums


def outcomes(tries: list[Trie], paths: list[list[int]]) -> list[tuple[float, bool]]:
    """The score of every draft, and whether it was accepted. paths: the accepted tokens below each root"""
    drafts = []
    for trie, path in zip(tries, paths, strict=True):
        node, accepted = 0, set()
        for token in path:
            node = trie.children[node, token]
            accepted.add(node)
        drafts += [(trie.scores[node], node in accepted) for node in range(1, len(trie))]
    return drafts


def grown_part(draft: Draft) -> GrowingDraft | None:
    """The part of a method that grows its trees level by level, so that depth takes time; None where none does."""
    part = draft.first if isinstance(draft, HybridDraft) else draft
    return part if isinstance(part, GrowingDraft) and not part.tree.static else None


def shallower(tree: TreeConfig, depth: int) -> TreeConfig:
    """The same tree with another depth, and no more nodes than it looks at then."""
    narrow = replace(tree, max_depth=depth, num_nodes=2)
    return replace(narrow, num_nodes=min(tree.num_nodes, narrow.num_candidates))


def joined(commits: list[Commit]) -> Iterator[Commit]:
    """The same rows in fewer commits: neighbours of one row each, which every request then has, become one."""
    for single, group in groupby(commits, key=lambda commit: commit.tokens.shape[1] == 1):
        rows = list(group)
        if not single:
            yield from rows
            continue
        yield Commit(
            tokens=torch.cat([commit.tokens for commit in rows], dim=1),
            features=torch.cat([commit.features for commit in rows], dim=1),
            position_ids=torch.cat([commit.position_ids for commit in rows], dim=1),
            context_len=rows[0].context_len,
            num_rows=torch.full_like(rows[0].num_rows, len(rows)),
            committed=rows[-1].committed,
        )
