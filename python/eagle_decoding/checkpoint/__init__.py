"""Draft heads on disk: read them strictly, check that they fit a target, write them so that every engine can."""

from .config import HeadConfig, default_aux_layer_ids
from .errors import CheckpointError
from .fit import check_fits
from .read import Head, read_head
from .write import write_head

__all__ = ["CheckpointError", "Head", "HeadConfig", "check_fits", "default_aux_layer_ids", "read_head", "write_head"]
