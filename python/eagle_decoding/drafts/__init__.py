"""Ways of drafting: each grows a DraftTree from what was committed so far."""

from eagle_decoding.drafts.base import Commit, Draft, NoDraft
from eagle_decoding.drafts.eagle1 import Eagle1Draft
from eagle_decoding.drafts.eagle3 import Eagle3Draft
from eagle_decoding.drafts.hydra import HydraDraft
from eagle_decoding.drafts.load import NAMED, load_draft
from eagle_decoding.drafts.medusa import MedusaDraft
from eagle_decoding.drafts.spelling import Spelling, read_spelling

__all__ = [
    "NAMED",
    "Commit",
    "Draft",
    "Eagle1Draft",
    "Eagle3Draft",
    "HydraDraft",
    "MedusaDraft",
    "NoDraft",
    "Spelling",
    "load_draft",
    "read_spelling",
]
