"""A draft that draws its children from a table of laws: what the loop does with trees of sampled children."""

from dataclasses import dataclass, field

import torch
from models import VOCAB
from torch import Tensor

import eagle_kernels
from eagle_decoding.drafts import Commit
from eagle_decoding.tree import DraftTree, Proposal, ancestor_words


@dataclass
class DrawnDraft:
    """Grows `widths[d]` children below the first node of depth d, drawn from the law of the last token.

    table:     [VOCAB, draft_vocab] logits of the next token
    num_fixed: how many of each node's children are the likeliest instead; None draws all
    d2t:       [draft_vocab] int32 or None
    """

    table: Tensor
    widths: tuple[int, ...] = (3, 2)
    num_fixed: int | None = None
    d2t: Tensor | None = None
    feature_layers: tuple[int, ...] = ()
    proposed: list[DraftTree] = field(default_factory=list)

    def start(self, prompt, lengths, params) -> None:
        self.params = params

    def extend(self, commit: Commit) -> None:
        pass

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        batch, nodes = len(root_tokens), 1 + sum(self.widths)
        draft_tokens = root_tokens[:, None].repeat(1, nodes)
        parent, depth = torch.full((2, batch, nodes), -1, dtype=torch.int32)
        depth[:] = 0
        draft_logits = torch.zeros(batch, nodes, self.table.shape[1])
        above, first = 0, 1
        for level, width in enumerate(self.widths):
            draft_logits[:, above] = self.table[draft_tokens[:, above].long()]
            children, _ = eagle_kernels.sample_children(
                draft_logits[:, above : above + 1], torch.full((batch, 1), above, dtype=torch.int32),
                torch.full((batch, 1), width, dtype=torch.int32), context_len, **vars(self.params), max_children=width,
                d2t=self.d2t,
                num_fixed=None if self.num_fixed is None else torch.full((batch, 1), self.num_fixed).int(),
            )  # fmt: skip
            drawn = children[:, 0] >= 0
            level_nodes = slice(first, first + width)
            draft_tokens[:, level_nodes] = torch.where(drawn, children[:, 0], root_tokens[:, None])
            parent[:, level_nodes] = torch.where(drawn, above, -1)
            depth[:, level_nodes] = torch.where(drawn, level + 1, 0)
            above, first = first, first + width
        mask = torch.stack([ancestor_words(parents) for parents in parent.tolist()])
        fixed = None if self.num_fixed is None else torch.full_like(parent, self.num_fixed)
        tree = DraftTree(
            draft_tokens, parent, depth, context_len[:, None] + depth, mask, None, len(self.widths),
            Proposal(draft_logits, fixed, self.d2t),
        )  # fmt: skip
        self.proposed.append(tree)
        return tree


def random_table(draft_vocab: int = VOCAB, seed: int = 3) -> Tensor:
    return 2 * torch.randn(VOCAB, draft_vocab, generator=torch.Generator().manual_seed(seed))
