"""verify_rejection: exact verification of draft trees whose children were sampled."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def verify_rejection(
    target_logits: Tensor,
    draft_logits: Tensor,
    draft_tokens: Tensor,
    parent: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    d2t: Tensor | None = None,
    num_fixed: Tensor | None = None,
    max_depth: int | None = None,
    traversal: bool = False,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Accepts a path of a tree drawn by sample_children so that the emitted tokens follow the target's law exactly.

    Siblings are tested in draw order: x is accepted with probability law(x) / proposal(x), else the law becomes
    norm(max(law - proposal, 0)) and x leaves the proposal (recursive rejection without replacement: Jeon et al., arXiv
    2402.14160; Chen et al., arXiv 2402.12374; a chain is Leviathan et al., arXiv 2211.17192). The token after the last
    accepted node is drawn from the law that is left; if it is a fixed child, that child is accepted and the walk goes
    on (Hu et al., arXiv 2502.20012, for one sample beside fixed children). traversal = True tests from the leaves up
    instead and accepts more (Weng et al., arXiv 2505.12398; on a chain: block verification, Sun et al., 2403.10444).

    Both laws are softmax(logits / temperature) under the request's filters, in transformers' order. At temperature
    <= 0 the walk follows the argmax. Laws and residuals are held as logs, log(p - q) = log p + log(1 - exp(log q -
    log p)), so that nothing underflows at low temperatures. Noise is keyed by (seed, context_len, node): nothing of a
    round is used again.

    target_logits: [batch, num_nodes, vocabulary] float32, bfloat16 or float16: the target's logits after each node
    draft_logits:  [batch, num_nodes, draft_vocabulary] float, before temperature, as given to sample_children: row n
                   is what n's children were drawn from; rows of leaves are not read
    draft_tokens:  [batch, num_nodes] int32 target ids; node 0 is the root
    parent:        [batch, num_nodes] int32, parent[n] < n, root -1; a later node with parent -1 is padding; siblings
                   in draw order, the fixed ones first
    context_len:   [batch] int32, as given to sample_children; must grow from round to round
    seed:          [batch] int64
    temperature, top_k, top_p, min_p: [batch] float32, int32, float32, float32, as in sample_tokens
    d2t:           [draft_vocabulary] int32 or None, offset from a draft id to the target's; no two may meet
    num_fixed:     [batch, num_nodes] int32 or None: how many of a node's children were chosen without noise
    max_depth:     longest path to accept, num_nodes - 1 by default
    traversal:     every child must have been sampled

    Returns accept_index [batch, max_depth + 1], accept_length [batch], bonus_token [batch] as verify_tree. A node whose
    target logits hold NaN or +inf, or are all -inf, ends the walk with bonus_token -1; children that the draft's law
    cannot have drawn are never accepted. Raises ValueError for num_fixed together with traversal.
    """
    if traversal and num_fixed is not None:
        raise ValueError("verify_rejection: traversal needs a tree of sampled children, got num_fixed: leave it out.")
    depth = draft_tokens.shape[1] - 1 if max_depth is None else max_depth
    fixed = torch.zeros_like(draft_tokens) if num_fixed is None else num_fixed
    return resolve("verify_rejection", draft_tokens, backend)(
        target_logits, draft_logits, draft_tokens, parent, fixed, context_len,
        seed, temperature, top_k, top_p, min_p, d2t, depth, traversal,
    )  # fmt: skip


@torch.library.register_fake("eagle_kernels::verify_rejection")
def _(
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
    batch = draft_tokens.shape[0]
    return draft_tokens.new_empty((batch, max_depth + 1)), draft_tokens.new_empty(batch), draft_tokens.new_empty(batch)
