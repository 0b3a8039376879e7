"""The directory of a draft's files: one that is there, or what the hub has under an id like organisation/name."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from eagle_decoding.checkpoint.depth_layouts import FILES
from eagle_decoding.checkpoint.errors import CheckpointError

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
PICKLED = tuple(name for names in FILES.values() for name in names if name.endswith(".pt"))
WEIGHTS = (("*.safetensors", "*.safetensors.index.json"), ("*.bin", *PICKLED))  # these only where none of those are
UNREAD = ("*/*", "consolidated*", "training_args.bin")  # folders, a model's second copy, a trainer's settings


def is_hub_id(source: str | Path) -> bool:
    """Whether a name that is no directory can be one on the hub."""
    return HUB_ID.fullmatch(str(source)) is not None


def draft_directory(source: str | Path) -> Path:
    """The directory that a user names, or, for a hub id, the one in the hub's cache that it is fetched to.

    Only config.json and weights are fetched, weights once where a repository has them in two formats.

    Raises CheckpointError, in one sentence, for what is neither and for what does not come from the hub.
    """
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory
    if not is_hub_id(source):
        raise CheckpointError(
            f"{source} is no directory and no hub id like organisation/name: give one of a draft head."
        )
    return fetched(str(source))


def fetched(hub_id: str) -> Path:
    """Where the files of a draft on the hub lie in the cache."""
    lacking = "weights"
    for patterns in WEIGHTS:
        folder = ask_hub(hub_id, patterns)
        if any(file for pattern in patterns for file in folder.glob(pattern)):
            if (folder / "config.json").is_file():
                return folder
            lacking = "config.json"
    raise CheckpointError(
        f"{hub_id} came from the hub without {lacking}: a draft is a config.json and weights as .safetensors or .bin, "
        "or Medusa's and Hydra's .pt."
    )


def ask_hub(hub_id: str, weights: tuple[str, ...]) -> Path:
    """Asks the hub, or without a network its cache, for config.json and the weights of these file names."""
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["config.json", *weights], ignore_patterns=[*UNREAD]))
    except Exception as error:  # of the HTTP library beneath as well, which is not the same in every version
        raise CheckpointError(
            f"{hub_id} is no directory here, and it did not come from the hub: {reason(error)}."
        ) from error


def reason(error: Exception) -> str:
    """What the hub's library says, as the end of a sentence."""
    if isinstance(error, GatedRepoError):
        return "its owner grants access on its page there, to who is logged in (`hf auth login`)"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or it is private (`hf auth login`)"
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
