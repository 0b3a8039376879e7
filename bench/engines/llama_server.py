"""llama.cpp: one llama-server for each way of drafting, asked over HTTP, timed by itself."""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engines.engine import Answer, Child

START_SECONDS = 120.0


class LlamaServer:
    """A server with one model and one slot. arguments: beside the model's, such as those of its drafting."""

    def __init__(self, binary: Path, model: Path, arguments: Sequence[str | Path], threads: int, context: int):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [
            binary,
            "-m",
            model,
            "-t",
            str(threads),
            "-c",
            str(context),
            "-np",
            "1",
            "--no-webui",
        ]
        self.child = Child("llama-server", [*command, "--host", "127.0.0.1", "--port", str(port), *arguments])
        self.close = self.child.close
        self.cpu_seconds = self.child.cpu_seconds
        try:
            self.wait()
        except BaseException:
            self.close()
            raise

    def wait(self) -> None:
        """Until the model is loaded. Raises ValueError if the server ends, or takes too long."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.child.process.poll() is not None:
                raise self.child.failed()
            try:
                self.call("/health")
                return
            except OSError:  # not listening yet, or 503 while it loads
                time.sleep(0.1)
        raise ValueError(f"llama-server did not load its model in {START_SECONDS:.0f} s, see {self.child.log}.")

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def ask(self, prompt: list[int], new_tokens: int) -> Answer:
        request = {"prompt": prompt, "n_predict": new_tokens, "temperature": 0, "cache_prompt": False}
        try:
            given = self.call("/completion", request | {"return_tokens": True})
        except urllib.error.HTTPError as error:
            raise ValueError(f"llama-server refuses a prompt: {error.read().decode(errors='replace')}") from error
        times = given["timings"]
        steps = times["predicted_n"] - 1
        rounds = steps - times.get("draft_n_accepted", 0)
        return Answer(given["tokens"], steps, rounds, times["prompt_ms"] / 1e3, times["predicted_ms"] / 1e3)


def llama_arms(
    target: Path, head: Path | None, quantised: Path | None, chains: list[int]
) -> list[tuple[str, Path, list[str | Path]]]:
    """(name, weights, further arguments) of every llama-server."""
    arms: list[tuple[str, Path, list[str | Path]]] = [("llama.cpp, plain", target, [])]
    if head:
        drafting: list[str | Path] = ["-md", head, "--spec-type", "draft-eagle3", "--spec-draft-n-max"]
        arms += [(f"llama.cpp, chain {size + 1}/{size}/1", target, [*drafting, str(size)]) for size in chains]
    arms.append(("llama.cpp, n-grams", target, ["--spec-type", "ngram-simple"]))
    if quantised:
        arms.append(("llama.cpp, plain, quantised", quantised, []))
    return arms


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def llama_version(binary: Path) -> str:
    """What `llama-server --version` says of itself, such as 11434 (1a2b3c4)."""
    try:
        run = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ValueError(f"llama-server does not start: {error}.") from error
    found = re.search(r"version: (.+)", run.stdout + run.stderr)
    return found[1].strip() if found else "unknown"
