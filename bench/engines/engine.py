"""An engine that decodes: what it answers with, and one that runs in a process of its own, started once."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Protocol

import torch

from bench.arms import Arm

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Answer:
    """One decoded answer, timed by the engine itself.

    tokens:         the new tokens, with or without the one that ends a text
    steps:          new tokens after the first, the end's among them
    rounds:         the target's forwards that gave them
    prompt_seconds: up to the first new token
    seconds:        from the first to the last
    """

    tokens: list[int]
    steps: int
    rounds: int
    prompt_seconds: float
    seconds: float


class Engine(Protocol):
    def ask(self, prompt: list[int], new_tokens: int) -> Answer:
        """The greedy answer to a prompt, of so many tokens or up to the end of the text."""
        ...

    def cpu_seconds(self) -> float:
        """What the engine's process has computed so far; 0 for an engine of this process."""
        ...

    def close(self) -> None: ...


class Ours:
    """One of this project's own arms, in this process."""

    def __init__(self, arm: Arm):
        self.arm = arm

    def ask(self, prompt: list[int], new_tokens: int) -> Answer:
        settings = {"max_new_tokens": new_tokens, "do_sample": False}
        clock, stats, _ = self.arm.run(torch.tensor([prompt]), settings)
        assert stats is not None
        return Answer(clock.tokens, clock.steps, stats.rounds, clock.prefill, clock.decode)

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        pass


class Child:
    """An engine's process. What it prints goes to a file, of which errors show the last line."""

    def __init__(self, name: str, command: Sequence[str | Path], **settings: Any):
        self.name = name
        with NamedTemporaryFile(prefix=f"{name}-", suffix=".log", delete=False) as file:
            self.log = Path(file.name)
            output: dict[str, Any] = {"stdout": file, "stderr": file} | settings
            try:
                self.process: subprocess.Popen[bytes] = subprocess.Popen([str(part) for part in command], **output)
            except OSError as error:
                raise ValueError(f"{name} does not start: {error}.") from error

    @property
    def input(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def failed(self) -> ValueError:
        lines = self.log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        return ValueError(f"{self.name} ended, see {self.log}: {lines[-1]}")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:13]) / TICKS

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
