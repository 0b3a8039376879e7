"""Decoders whose rounds can be captured, a count of captures and replays, and texts decoded with and without them."""

from typing import Any

import torch
from depth_heads import random_depth_heads
from eagle1_head import random_eagle1
from models import eagle_decoder, prompts
from tape import Tape
from test_draft_causal_lm import twin
from test_draft_eagle1 import eagle1_draft
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding import SpeculativeDecoder, TreeConfig, graph
from eagle_decoding.drafts import HydraDraft, MedusaDraft, NoDraft

TREE = TreeConfig(num_nodes=12, max_depth=3, topk=3)
GREEDY = {"do_sample": False}
SAMPLED = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 3}


def eagle3(target: PreTrainedModel, *shape: Any, vocab: int = 60, **options: Any) -> SpeculativeDecoder:
    return eagle_decoder(target, TreeConfig(*(shape or (12, 3, 3)), **options), draft_vocab=vocab)


DECODERS = {
    "plain": lambda target: SpeculativeDecoder(target, NoDraft()),
    "eagle3-tree": eagle3,
    "eagle3-chain": lambda target: eagle3(target, 5, 4, 1),
    "eagle3-static": lambda target: eagle3(target, 26, 5, 4, static=True),
    "eagle3-sampled": lambda target: eagle3(target, children="sampled"),
    "eagle3-auto-children": lambda target: eagle3(target, children="auto"),
    "eagle1": lambda target: SpeculativeDecoder(target, eagle1_draft(random_eagle1(target, 60), target, TREE)),
    "medusa": lambda target: SpeculativeDecoder(
        target, MedusaDraft(random_depth_heads(target, "medusa", 60), target, TREE)
    ),
    "hydra": lambda target: SpeculativeDecoder(
        target, HydraDraft(random_depth_heads(target, "hydra", 60), target, TREE)
    ),
    "small-model": lambda target: SpeculativeDecoder(target, twin(target, TreeConfig(6, 5, 1))),
}


class Captures:
    """Counts captures and replays; on a CPU it makes them, by tapes."""

    def __init__(self, device: str):
        self.stock = graph.CAPTURES.get(device, lambda step, device: Tape(step).replay)
        self.made, self.replays = 0, 0

    def __call__(self, step: graph.Step, device: torch.device) -> graph.Step:
        replay = self.stock(step, device)
        self.made += 1

        def counted() -> None:
            self.replays += 1
            replay()

        return counted


def texts(decoder: SpeculativeDecoder, batch: int, captured: bool, **settings: Any) -> tuple[Tensor, int]:
    """The text, and how many rounds it took."""
    decoder.graph = captured
    inputs = {name: value.to(decoder.target.device) for name, value in prompts(batch).items()}
    text = decoder.generate(**inputs, **{"max_new_tokens": 24, "eos_token_id": None} | settings)
    return text, decoder.stats.rounds
