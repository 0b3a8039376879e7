"""Draft heads on disk: read them strictly, check that they fit a target, write them so that every engine can."""

from eagle_decoding.checkpoint.config import HeadConfig, default_aux_layer_ids
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fit import check_fits
from eagle_decoding.checkpoint.formats import FORMATS, TargetFacts
from eagle_decoding.checkpoint.read import Head, read_head
from eagle_decoding.checkpoint.write import write_head

__all__ = [
    "FORMATS",
    "CheckpointError",
    "Head",
    "HeadConfig",
    "TargetFacts",
    "check_fits",
    "default_aux_layer_ids",
    "read_head",
    "write_head",
]
