"""Draft heads on disk: read them strictly, check that they fit a target, write them so that every engine can."""

from eagle_decoding.checkpoint.config import HeadConfig, LayerConfig, default_aux_layer_ids
from eagle_decoding.checkpoint.depth_heads import DepthHeads, DepthHeadsConfig, layer_of, rope_of
from eagle_decoding.checkpoint.eagle1 import Eagle1Config
from eagle_decoding.checkpoint.eagle1_formats import EAGLE1_FORMATS
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fit import check_fits
from eagle_decoding.checkpoint.formats import FORMATS, TargetFacts
from eagle_decoding.checkpoint.hub import draft_directory
from eagle_decoding.checkpoint.read import Head, read_head
from eagle_decoding.checkpoint.read_depth_heads import depth_heads_files, read_depth_heads
from eagle_decoding.checkpoint.write import write_head
from eagle_decoding.checkpoint.write_depth_heads import write_depth_heads

__all__ = [
    "EAGLE1_FORMATS",
    "FORMATS",
    "CheckpointError",
    "DepthHeads",
    "DepthHeadsConfig",
    "Eagle1Config",
    "Head",
    "HeadConfig",
    "LayerConfig",
    "TargetFacts",
    "check_fits",
    "default_aux_layer_ids",
    "depth_heads_files",
    "draft_directory",
    "layer_of",
    "read_depth_heads",
    "read_head",
    "rope_of",
    "write_depth_heads",
    "write_head",
]
