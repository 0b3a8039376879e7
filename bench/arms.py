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
    """Notes when the first and the last new token came."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
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
    """A way of decoding: its name, how to call it, and the decoder behind it if it is one of ours."""

    name: str
    generate: Generate
    decoder: SpeculativeDecoder | None = None

    def run(self, prompt: Tensor, settings: dict[str, Any]) -> tuple[Clock, Stats | None, list[LoggedRound]]:
        """One timed call; statistics and rounds of our own decoders."""
        clock = Clock()
        self.generate(prompt, streamer=clock, **settings)
        if self.decoder is None:
            return clock, None, []
        draft = self.decoder.draft
        return clock, self.decoder.stats, draft.finish(self.decoder.stats) if isinstance(draft, RoundLog) else []


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
    decoder = SpeculativeDecoder.from_pretrained(target, head, tree=tree)
    decoder.draft = RoundLog(decoder.draft)
    return Arm(tree_name(tree), decoder.generate, decoder)


def warmed_up(arm: Arm, prompt: Tensor, settings: dict[str, Any], tokens: int) -> float:
    """Runs a few tokens, so that one-time costs are in nobody's time; returns the seconds that took."""
    start = time.perf_counter()
    torch.manual_seed(0)
    arm.run(prompt, {**settings, "max_new_tokens": tokens})
    return time.perf_counter() - start
