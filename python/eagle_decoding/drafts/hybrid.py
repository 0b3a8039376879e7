"""Two drafting methods in one tree: branches from the text grafted into the tree of a draft head."""

from torch import Tensor

from eagle_decoding.drafts.base import Commit, Draft
from eagle_decoding.drafts.trie import Trie, best, graft, to_draft_tree
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree


class HybridDraft:
    """Lets both methods draft, merges what they agree on, and keeps the nodes most likely to be accepted.

    A node's score is the log-probability of its path; of a path that both drafted, the higher one. A path's score never
    exceeds that of its beginning, so that the best nodes are a tree (the re-ranking of EAGLE-2, arXiv 2406.16858).

    first, second: methods whose trees have node_scores
    num_nodes:     nodes of the merged tree, the root included
    """

    def __init__(self, first: Draft, second: Draft, num_nodes: int):
        self.first, self.second, self.num_nodes = first, second, num_nodes
        self.feature_layers = first.feature_layers or second.feature_layers

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        self.first.start(prompt, lengths, params)
        self.second.start(prompt, lengths, params)

    def extend(self, commit: Commit) -> None:
        self.first.extend(commit)
        self.second.extend(commit)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        """Raises ValueError for trees without scores or with sampled children, which cannot be re-ranked."""
        trees = [draft.propose(root_tokens, context_len) for draft in (self.first, self.second)]
        merged = [Trie(root, sum(tree.num_nodes for tree in trees)) for root in root_tokens.tolist()]
        for tree in trees:
            graft(tree, merged)
        return to_draft_tree([best(trie, self.num_nodes) for trie in merged], context_len)
