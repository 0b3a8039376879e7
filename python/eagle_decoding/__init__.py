"""EAGLE-family speculative decoding of unmodified transformers models."""

from eagle_decoding.config import TreeConfig
from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.stats import Stats

__all__ = ["SpeculativeDecoder", "Stats", "TreeConfig"]
