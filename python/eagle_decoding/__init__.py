"""EAGLE-family speculative decoding of unmodified transformers models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eagle_decoding.config import TreeConfig
    from eagle_decoding.decoder import SpeculativeDecoder
    from eagle_decoding.stats import Stats
    from eagle_decoding.typical import TypicalAcceptance

__all__ = ["SpeculativeDecoder", "Stats", "TreeConfig", "TypicalAcceptance"]

HOMES = {"SpeculativeDecoder": "decoder", "Stats": "stats", "TreeConfig": "config", "TypicalAcceptance": "typical"}


def __getattr__(name: str) -> Any:
    """Imports a name when it is asked for: the command line answers --help without loading torch and transformers."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    """What is there, and the names that are imported when they are asked for."""
    return sorted({*globals(), *__all__})
