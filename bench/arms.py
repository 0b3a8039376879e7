"""The ways of decoding that are measured against each other on the same weights."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CompileConfig, PreTrainedModel, StaticCache
from transformers.generation.streamers import BaseStreamer

from bench.rounds import LoggedRound, RoundLog
from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import NoDraft
from eagle_decoding.stats import Stats

BASELINES = ("transformers", "compiled", "plain")
Generate = Callable[..., Any]


class Clock(BaseStreamer):
    """Notes the new tokens, and when the first and the last of them reached the host.

    A streamer gets tokens in the host's memory, so what a GPU had to do for them has ended. Work from before the call
    has to be over when the clock starts.
    """

    def __init__(self, device: torch.device):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.start = time.perf_counter()
        self.times: list[float] = []
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        if self.times:
            self.tokens += value.flatten().tolist()
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass

    @property
    def prefill(self) -> float:
        return self.times[1] - self.start  # times[0] is the prompt handed to the streamer

    @property
    def decode(self) -> float:
        return self.times[-1] - self.times[1]

    @property
    def steps(self) -> int:
        return len(self.times) - 2  # new tokens after the first


@dataclass
class Arm:
    """A way of decoding.

    decoder: the one behind it if it is one of ours
    log:     notes rounds, its draft is a RoundLog: the decoder itself, or another one that decodes the same once the
             clock has stopped. Reading every tree back is nothing on a CPU; on a GPU rounds could not be captured
    """

    name: str
    generate: Generate
    decoder: SpeculativeDecoder | None = None
    log: SpeculativeDecoder | None = None

    def run(self, prompt: Tensor, settings: dict[str, Any]) -> tuple[Clock, Stats | None, list[LoggedRound]]:
        """One timed call with torch's seed 0; statistics and rounds of our own decoders."""
        torch.manual_seed(0)
        clock = Clock(prompt.device)
        self.generate(prompt, streamer=clock, **settings)
        stats = self.decoder.stats if self.decoder else None
        if self.log is None:
            return clock, stats, []
        if self.log is not self.decoder:
            torch.manual_seed(0)
            self.log.generate(prompt, **settings)
        return clock, stats, self.log.draft.finish(self.log.stats)


def parse_tree(text: str) -> TreeConfig:
    """nodes/depth/topk, as 24/5/4; raises ValueError for anything else."""
    parts = text.split("/")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ValueError(f"A tree is written nodes/depth/topk, as 24/5/4: got {text!r}.")
    return TreeConfig(*(int(part) for part in parts))


def tree_name(tree: TreeConfig) -> str:
    kind = "chain" if tree.topk == 1 else "tree"
    return f"{kind} {tree.num_nodes}/{tree.max_depth}/{tree.topk}"


def baseline(name: str, target: PreTrainedModel, max_length: int) -> Arm:
    """transformers' generate as it comes, the same with a static cache and torch.compile, or plain decoding here.

    max_length: of the longest prompt with its answer; the static cache has one size, so that it compiles once
    """
    if name == "transformers":
        return Arm(name, target.generate)
    if name == "plain":
        decoder = SpeculativeDecoder(target, NoDraft())
        return Arm(name, decoder.generate, decoder)
    if name != "compiled":
        raise ValueError(f"{name!r} is no baseline, choose from {', '.join(BASELINES)}.")
    model = copy.deepcopy(target)  # guards of compiled code look at attributes that our decoders set for a while
    cache = StaticCache(config=model.config, max_cache_len=max_length)
    config = CompileConfig(mode="default", dynamic=False)
    config._compile_all_devices = True  # transformers compiles on accelerators only unless told so

    def generate(prompt: Tensor, **settings: Any) -> Tensor:
        cache.reset()
        return model.generate(prompt, past_key_values=cache, compile_config=config, **settings)

    return Arm(name, generate)


def speculative(target: PreTrainedModel, head: str, tree: TreeConfig) -> Arm:
    decoder = log = SpeculativeDecoder.from_pretrained(target, head, tree=tree)
    if target.device.type != "cpu":
        log = SpeculativeDecoder.from_pretrained(target, head, tree=tree, graph=False)
    log.draft = RoundLog(log.draft)
    return Arm(tree_name(tree), decoder.generate, decoder, log)


def warmed_up(arm: Arm, prompt: Tensor, settings: dict[str, Any], tokens: int) -> float:
    """Runs a few tokens, so that one-time costs are in nobody's time; returns the seconds that took."""
    start = time.perf_counter()
    arm.run(prompt, {**settings, "max_new_tokens": tokens})
    return time.perf_counter() - start
