"""The kinds of head that the trainer makes, by the name that `head.kind` gives."""

from eagle_decoding.train.objectives.base import Objective
from eagle_decoding.train.objectives.depth import DEPTH
from eagle_decoding.train.objectives.eagle1 import EAGLE1
from eagle_decoding.train.objectives.eagle3 import EAGLE3

OBJECTIVES: dict[str, Objective] = {
    "eagle3": EAGLE3,
    "eagle1": EAGLE1,
    "hass": EAGLE1,
    "medusa": DEPTH,
    "hydra": DEPTH,
    "hydra++": DEPTH,
}

__all__ = ["OBJECTIVES", "Objective"]
