"""How users spell a way of drafting: [auto:][static: or suffix+ or prompt-lookup+]SOURCE, taken apart in one place."""

import re
from dataclasses import dataclass
from pathlib import Path

TEXT_METHODS = ("prompt-lookup", "suffix")  # they read the text alone, and can be grafted into a head's tree
METHODS = (*TEXT_METHODS, "lookahead")  # what needs no weights
SPELLING = re.compile(rf"(auto:)?(?:(static:)|({'|'.join(TEXT_METHODS)})\+)?(.*)", re.DOTALL)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Spelling:
    """A way of drafting that is there.

    source:  one of METHODS, or a directory
    grafted: one of TEXT_METHODS, whose branches go into the tree of the directory's draft
    static:  the directory's head fills EAGLE-1's static tree
    auto:    all of this where it pays, plain decoding elsewhere
    """

    source: str
    grafted: str | None = None
    static: bool = False
    auto: bool = False

    def __str__(self) -> str:
        graft = f"{self.grafted}+" if self.grafted else ""
        return f"{'auto:' * self.auto}{'static:' * self.static}{graft}{self.source}"

    @property
    def directory(self) -> Path | None:
        """Where the draft's weights lie, None where it needs none."""
        alone = self.grafted is None and not self.static
        return None if alone and self.source in METHODS else Path(self.source).expanduser()


def read_spelling(draft: str | Path) -> Spelling:
    """Takes apart what a user wrote, after a look whether the directory in it is there.

    Raises ValueError, in one sentence, for anything else.
    """
    auto, static, grafted, source = SPELLING.fullmatch(str(draft)).groups()  # type: ignore[union-attr]  # it always fits
    spelling = Spelling(source, grafted, bool(static), bool(auto))
    if source.startswith("auto:"):
        raise ValueError(f"{draft} says auto: twice, write {source}.")
    if spelling.directory is None or (source and spelling.directory.is_dir()):
        return spelling
    if HUB_ID.fullmatch(source) and not source.startswith("."):
        raise ValueError(
            f"{source} is no directory, and a draft is not fetched from the hub: download it, `hf download {source} "
            "--local-dir DIRECTORY`, and give the directory."
        )
    raise ValueError(
        f"The draft {str(draft)!r} needs a directory and {source!r} is none: give one, or one of {', '.join(METHODS)}, "
        "which need none."
    )
