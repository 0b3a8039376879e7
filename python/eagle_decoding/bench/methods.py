"""The rows of the table: transformers' own generation, plain decoding here, and every way of drafting."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.drafts import NAMED, NoDraft, load_draft
from eagle_decoding.stats import Stats
from eagle_decoding.terminal.models import DRAFT_DTYPES

BASELINE, PLAIN = "transformers", "plain"
RIVALS = {BASELINE: {}, "transformers prompt lookup": {"prompt_lookup_num_tokens": 10}}


@dataclass
class Method:
    """A way of generating.

    spec:     what is drafted with, as load_draft takes it; for rivals the arguments of transformers' generate
    generate: (prompt [1, tokens], arguments of generate) -> prompt and new tokens [1, tokens]
    stats:    of the last call, None where nobody counts
    """

    name: str
    spec: str
    generate: Callable[..., Tensor]
    stats: Callable[[], Stats | None]


def catalogue(drafts: dict[str, str]) -> dict[str, str]:
    """Name -> spec of all that can be measured with these drafts; the first that grows trees also in a hybrid and auto.

    drafts: the user's name for each draft -> its directory or hub id
    """
    specs = {name: str(arguments) for name, arguments in RIVALS.items()} | {PLAIN: ""} | {name: name for name in NAMED}
    specs |= drafts
    growing = [(name, source) for name, source in drafts.items() if not source.startswith("static:")]
    for name, source in growing[:1]:
        specs |= {f"suffix+{name}": f"suffix+{source}", f"auto:suffix+{name}": f"auto:suffix+{source}"}
    return specs


def choose(wanted: str, specs: dict[str, str]) -> dict[str, str]:
    """The specs of a comma-separated list of names, or all of them; the two baselines always come along.

    Raises ValueError for a name that is not there.
    """
    names = list(specs) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    unknown = [name for name in names if name not in specs]
    if unknown:
        raise ValueError(f"--methods {unknown[0]} is unknown, choose from: all, {', '.join(specs)}.")
    return {name: spec for name, spec in specs.items() if name in (*names, BASELINE, PLAIN)}


def load_method(name: str, spec: str, target: PreTrainedModel, draft_dtype: str | None) -> Method:
    """Raises ValueError when a draft does not fit the target.

    draft_dtype: a key of DRAFT_DTYPES, in which drafts with weights are served; None for the target's
    """
    if name in RIVALS:
        extra: dict[str, Any] = RIVALS[name]
        return Method(name, spec, lambda prompt, **kwargs: target.generate(prompt, **extra, **kwargs), lambda: None)
    served = None if draft_dtype is None or spec in NAMED else DRAFT_DTYPES[draft_dtype]
    decoder = SpeculativeDecoder(target, NoDraft() if name == PLAIN else load_draft(spec, target, dtype=served))
    return Method(name, spec, decoder.generate, lambda: decoder.stats)
