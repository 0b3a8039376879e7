"""Keeps a converted copy of a .gguf file: reading the file itself takes most of a minute, the copy a second."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer

from eagle_decoding.files import staged_folder
from eagle_decoding.target import load_target


def cache_folder() -> Path:
    """Where converted models are kept: eagle-decoding in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eagle-decoding"


def converted(file: Path, dtype: torch.dtype, say: Callable[[str], None]) -> Path:
    """Returns a folder with the model of `file`, dequantised to `dtype`, and its tokenizer; makes it on first use.

    transformers parses every string of the file's vocabulary and merges in Python, once each for the configuration, the
    weights and the tokenizer. The folder's name holds all that its content depends on, and the folder appears under
    that name only when it is complete, so a copy that is there is a copy to trust.

    say: is told about a conversion before it starts
    """
    folder = cache_folder() / f"{file.stem}-{fingerprint(file, dtype)}"
    if folder.is_dir():
        return folder
    say(f"Converting {file.name} once to {dtype}, into {folder}.")
    with staged_folder(folder) as partial:
        load_target(file, dtype=dtype).save_pretrained(partial)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster: its copy is the same
            if not folder.is_dir():
                raise
    return folder


def fingerprint(file: Path, dtype: torch.dtype) -> str:
    """Names one conversion: changes with the file, the dtype and the version of transformers that converts."""
    status = file.stat()
    facts = [file.resolve(), status.st_size, status.st_mtime_ns, dtype, transformers.__version__]
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:16]
