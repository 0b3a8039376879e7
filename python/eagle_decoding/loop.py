"""Speculative decoding: draft a tree, verify it in one forward, keep the path that the target would have taken."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.cache import TreeCache
from eagle_decoding.drafts import Commit, Draft
from eagle_decoding.output import Output
from eagle_decoding.sampling import NodeSampler
from eagle_decoding.stats import Round, Stats
from eagle_decoding.target import Target
from eagle_decoding.tree import root_only


@torch.inference_mode()
def decode(
    target: Target, draft: Draft, sampler: NodeSampler, output: Output, prompt: Tensor, lengths: Tensor, stats: Stats
) -> None:
    """Fills `output` with the target's own continuation of each prompt.

    A round drafts a tree on the last committed token (its root), runs the target once over all nodes, chooses the token
    after each node, and walks from the root as long as a child holds the chosen token. The text is that of plain
    decoding whatever was drafted: only the number of rounds depends on the draft. Trees with sampled children are
    verified by rejection sampling instead: then the text has the law of plain decoding.

    prompt:  [batch, tokens] int64, right-padded
    lengths: [batch] int32, real tokens of each prompt
    """
    cache = target.new_cache(len(prompt))
    draft.start(prompt, lengths, sampler.params)
    with stats.phase("prefill"):
        cache.buffer.reserve(prompt.shape[1])
        commit, next_tokens = prefill(target, sampler, output, prompt, lengths, cache)
    context_len, committed = lengths, prompt.shape[1]
    while not output.done:
        with stats.phase("draft"):
            draft.extend(commit)
            tree = draft.propose(next_tokens, context_len)
        with stats.phase("verify"):
            cache.buffer.reserve(committed + tree.num_nodes)
            verified = target.verify(tree, context_len, cache)
        with stats.phase("sample"):
            accept_index, accept_length, bonus_token = sampler.verify(verified.logits, tree, output)
        with stats.phase("commit"):
            cache.compact(accept_index, accept_length, context_len)
            emitted, features, position_ids, next_context_len = eagle_kernels.commit_step(
                tree.draft_tokens, accept_index, accept_length, bonus_token, verified.features, context_len
            )
        with stats.phase("output"):
            active = output.active_rows()
            rows = accept_length.tolist()
            output.push([tokens[: n + 1] for tokens, n in zip(emitted.tolist(), rows, strict=True)])
            for b in active:
                stats.record_round(rows[b])
        stats.last_round = Round(tree, accept_index, accept_length, bonus_token)
        longest = max(rows) + 1
        committed += longest
        commit = Commit(
            tokens=emitted[:, :longest].clamp(min=0),
            features=features[:, :longest],
            position_ids=position_ids[:, :longest],
            context_len=context_len,
            num_rows=accept_length + 1,
            committed=committed,
        )
        next_tokens, context_len = bonus_token.clamp(min=0), next_context_len
    stats.tokens = output.num_tokens


def prefill(
    target: Target, sampler: NodeSampler, output: Output, prompt: Tensor, lengths: Tensor, cache: TreeCache
) -> tuple[Commit, Tensor]:
    """Runs the prompts and chooses each request's first token; returns what is committed, and these tokens."""
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
    return commit, first_token
