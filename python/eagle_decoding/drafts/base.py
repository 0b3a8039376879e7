"""What a drafting method must offer to the loop, and the method that drafts nothing."""

from typing import NamedTuple, Protocol

from torch import Tensor

from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree, root_only


class Commit(NamedTuple):
    """Rows that a round (or the prompt) committed: each target feature with the token that follows it.

    tokens:       [batch, rows] int32, the token after each row
    features:     [batch, rows, width], the target's features of each row
    position_ids: [batch, rows] int32, position of the feature (the token stands one further)
    context_len:  [batch] int32, committed rows before these
    num_rows:     [batch] int32, how many of the rows are real; the others are padding
    committed:    no request has more rows than this once these are in; known without asking the device
    """

    tokens: Tensor
    features: Tensor
    position_ids: Tensor
    context_len: Tensor
    num_rows: Tensor
    committed: int


class TreeRows(NamedTuple):
    """Nodes of one depth of the tree under construction, as a draft model runs them.

    tokens:        [batch, nodes] int32
    origin:        [batch, nodes] int64, the row of the depth above that each continues from
    depth:         levels below the root
    context_len:   [batch] int32, position of the root
    ancestor_mask: [batch, nodes, words] int64, bit r set when row r of the nodes run so far is an ancestor or the node
                   itself
    first_row:     row of the first of these nodes
    """

    tokens: Tensor
    origin: Tensor
    depth: int
    context_len: Tensor
    ancestor_mask: Tensor
    first_row: int


def last_rows(rows: Tensor, num_rows: Tensor) -> Tensor:
    """The last real row of each request: [batch, rows, width] -> [batch, 1, width]."""
    index = (num_rows.long() - 1)[:, None, None]
    return rows.gather(1, index.expand(-1, 1, rows.shape[-1]))


class Draft(Protocol):
    """A drafting method, stateful for one batch of requests.

    One whose rounds are the same operations each time, and decide nothing on the host, says so by `on_device = True`:
    only then can rounds be captured. What such a method keeps from round to round lies in memory that stays, and
    `params` is what it was started with last: started with the very same object, which then holds other values, it
    keeps its memory where it was, and rounds captured before still serve.
    """

    feature_layers: tuple[int, ...]

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        """Forgets the previous requests and makes room for new ones.

        prompt:  [batch, tokens] int64, right-padded
        lengths: [batch] int32, real tokens of each prompt
        params:  how each request samples
        """

    def extend(self, commit: Commit) -> None:
        """Takes in what was committed; after it the newest token is the root of the next tree."""

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        """Grows a tree on root_tokens [batch] int32, which stand at position context_len [batch] int32."""


class NoDraft:
    """Drafts nothing, so that the loop decodes plainly."""

    on_device = True
    feature_layers: tuple[int, ...] = ()

    params: SamplingParams | None = None

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        self.params = params

    def extend(self, commit: Commit) -> None:
        pass

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        return root_only(root_tokens, context_len)
