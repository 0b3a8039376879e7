"""From what a user names to a drafting method for a loaded target."""

from pathlib import Path

from transformers import PreTrainedModel

from eagle_decoding.checkpoint import Eagle1Config, check_fits, depth_heads_files, read_depth_heads, read_head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Draft
from eagle_decoding.drafts.eagle1 import Eagle1Draft
from eagle_decoding.drafts.eagle3 import Eagle3Draft
from eagle_decoding.drafts.hydra import HydraDraft
from eagle_decoding.drafts.medusa import MedusaDraft


def load_draft(draft: str | Path, target: PreTrainedModel, tree: TreeConfig) -> Draft:
    """Loads a drafting method: a directory with an EAGLE-3 or EAGLE-1 head, or with Medusa or Hydra heads.

    Raises ValueError when the head does not fit the target, naming what differs.
    """
    if depth_heads_files(draft):
        heads = read_depth_heads(draft, target.config)
        return HydraDraft(heads, target, tree) if heads.config.reads_path else MedusaDraft(heads, target, tree)
    head = read_head(draft)
    check_fits(head.config, target.config)
    embedding, layers = target.get_input_embeddings().weight, target.config.num_hidden_layers
    if isinstance(head.config, Eagle1Config):
        lm_head = target.get_output_embeddings().weight
        return Eagle1Draft(head, embedding, lm_head, layers, tree, target.dtype, target.device)
    return Eagle3Draft(head, embedding, layers, tree, target.dtype, target.device)
