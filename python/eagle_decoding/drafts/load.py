"""From what a user names to a drafting method for a loaded target."""

from pathlib import Path

from transformers import PreTrainedModel

from eagle_decoding.checkpoint import check_fits, read_head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Draft
from eagle_decoding.drafts.eagle3 import Eagle3Draft


def load_draft(draft: str | Path, target: PreTrainedModel, tree: TreeConfig) -> Draft:
    """Loads a drafting method: a directory with an EAGLE-3 head.

    Raises ValueError when the head does not fit the target, naming what differs.
    """
    head = read_head(draft)
    check_fits(head.config, target.config)
    embedding = target.get_input_embeddings().weight
    return Eagle3Draft(head, embedding, target.config.num_hidden_layers, tree, target.dtype, target.device)
