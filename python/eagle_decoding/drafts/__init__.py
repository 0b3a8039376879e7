"""Ways of drafting: each grows a DraftTree from what was committed so far."""

from eagle_decoding.drafts.base import Commit, Draft, NoDraft
from eagle_decoding.drafts.eagle3 import Eagle3Draft
from eagle_decoding.drafts.load import NAMED, load_draft

__all__ = ["NAMED", "Commit", "Draft", "Eagle3Draft", "NoDraft", "load_draft"]
