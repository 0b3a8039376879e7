"""How users spell a way of drafting: [auto:][static: or suffix+ or prompt-lookup+]SOURCE, taken apart in one place."""

import re
from dataclasses import dataclass
from pathlib import Path

from eagle_decoding.checkpoint.hub import draft_directory, is_hub_id

TEXT_METHODS = ("prompt-lookup", "suffix")  # they read the text alone, and can be grafted into a head's tree
METHODS = (*TEXT_METHODS, "lookahead")  # what needs no weights
SPELLING = re.compile(rf"(auto:)?(?:(static:)|({'|'.join(TEXT_METHODS)})\+)?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Spelling:
    """A way of drafting that is there.

    source:    one of METHODS, a directory or a hub id, as the user wrote it
    grafted:   one of TEXT_METHODS, whose branches go into the tree of the source's draft
    static:    the source's head fills EAGLE-1's static tree
    auto:      all of this where it pays, plain decoding elsewhere
    directory: where the draft's weights lie on this machine, None where it needs none
    """

    source: str
    grafted: str | None = None
    static: bool = False
    auto: bool = False
    directory: Path | None = None

    def __str__(self) -> str:
        graft = f"{self.grafted}+" if self.grafted else ""
        return f"{'auto:' * self.auto}{'static:' * self.static}{graft}{self.source}"


def read_spelling(draft: str | Path) -> Spelling:
    """Takes apart what a user wrote, and finds the directory in it; a draft that only the hub has is fetched.

    A directory of that name goes before a hub id.
    Raises ValueError, in one sentence, for anything else.
    """
    auto, static, grafted, source = SPELLING.fullmatch(str(draft)).groups()  # type: ignore[union-attr]  # it always fits
    if source.startswith("auto:"):
        raise ValueError(f"{draft} says auto: twice, write {source}.")
    if not static and not grafted and source in METHODS:
        return Spelling(source, auto=bool(auto))
    if not source or not (Path(source).expanduser().is_dir() or is_hub_id(source)):
        raise ValueError(
            f"The draft {str(draft)!r} needs a directory and {source!r} is none: give one, a hub id like "
            f"organisation/name, or one of {', '.join(METHODS)}, which need none."
        )
    return Spelling(source, grafted, bool(static), bool(auto), draft_directory(source))
