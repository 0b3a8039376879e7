"""One timed generation: what came out, how long the tokens after the first took, and how many rounds they needed."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from eagle_decoding.bench.methods import RIVALS, Method
from eagle_decoding.generation import until_end


class Clock(BaseStreamer):
    """Notes when new tokens come, and how many came first. The prompt is handed to a streamer before them."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.times: list[float] = []
        self.first = 0

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == 2:
            self.first = value.numel()

    def end(self) -> None:
        pass


CHECK = -1  # the run that compares greedy texts in fp32 and tells no speeds


@dataclass(frozen=True)
class Key:
    """Which generation: of a file's question, at a temperature, in a run (counted from 0, or CHECK), by a method."""

    run: int
    temperature: float
    file: str
    question: int
    method: str


@dataclass
class Record:
    """A measurement.

    spec:            the method's, as loaded
    tokens, seconds: new tokens after those that came with the prompt's forward, up to the end token, and their time;
                     on a GPU a capture, where the call makes one, is part of it
    prompt_seconds:  time to the first token
    rounds:          forwards of the target after the prompt's, 0 where nobody counts
    text:            digest of all new tokens
    """

    key: Key
    spec: str
    tokens: int
    seconds: float
    prompt_seconds: float
    rounds: int
    accepted: int
    text: str


def measure(method: Method, key: Key, prompt: Tensor, settings: dict[str, Any], ends: frozenset[int]) -> Record:
    """Generates once.

    prompt:   [1, tokens] int64
    settings: arguments of generate
    ends:     tokens that end a text; nothing after one counts
    """
    seed = max(key.run, 0)
    torch.manual_seed(seed)
    own = {} if method.name in RIVALS else {"seed": seed}
    if prompt.is_cuda:
        torch.cuda.synchronize()  # the clock starts on an idle device; it stops at tokens that have reached the host
    clock = Clock()
    output = method.generate(prompt, streamer=clock, **settings, **own)
    new = until_end(output[0, prompt.shape[1] :].tolist(), ends)
    stats = method.stats()
    return Record(
        key=key,
        spec=method.spec,
        tokens=max(len(new) - clock.first, 0),
        seconds=clock.times[-1] - clock.times[1],
        prompt_seconds=clock.times[1] - clock.started,
        rounds=stats.rounds if stats else 0,
        accepted=stats.accepted if stats else 0,
        text=hashlib.sha256(str(new).encode()).hexdigest()[:16],
    )
