"""Ways of drafting: each grows a DraftTree from what was committed so far."""

from eagle_decoding.drafts.base import Commit, Draft, NoDraft
from eagle_decoding.drafts.eagle1 import Eagle1Draft
from eagle_decoding.drafts.eagle3 import Eagle3Draft
from eagle_decoding.drafts.hydra import HydraDraft
from eagle_decoding.drafts.load import load_draft
from eagle_decoding.drafts.medusa import MedusaDraft

__all__ = ["Commit", "Draft", "Eagle1Draft", "Eagle3Draft", "HydraDraft", "MedusaDraft", "NoDraft", "load_draft"]
