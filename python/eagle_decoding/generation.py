"""What generate is told at a temperature, and which tokens end a text."""

from collections.abc import Collection
from typing import Any

from transformers import PreTrainedModel


def at_temperature(temperature: float) -> dict[str, Any]:
    """Arguments of generate: greedy at temperature 0, else sampling from the whole vocabulary."""
    if temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def end_tokens(target: PreTrainedModel) -> frozenset[int]:
    """Token ids that end a text, by the target's generation settings."""
    ends: Any = target.generation_config.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or [])


def until_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    """The tokens up to and including the first that ends the text."""
    end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]
