"""Speculative sampling: a small causal language model drafts (Leviathan et al. 2211.17192, Chen et al. 2302.01318)."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding import attention
from eagle_decoding.checkpoint.files import read_fields
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit, TreeRows
from eagle_decoding.drafts.growth import GrowingDraft, check_topk
from eagle_decoding.modules import fuse
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.target import Target, load_target
from eagle_decoding.tree import causal_words

CHUNK = 64  # committed tokens run through the model at a time: one mask word
TREE = TreeConfig(num_nodes=6, max_depth=5, topk=1)  # a chain of five, as transformers' assisted generation begins with
CHILDREN = ("likeliest", "coupled", "sampled")
PADDING = 1024  # entries by which vocabularies of one tokenizer differ at most


class CausalLmDraft(GrowingDraft):
    """Grows trees with a model that shares the target's tokenizer; a row's state is its logits.

    Its cache holds every committed token, the root included; rows of a tree under construction lie behind them.

    model: the draft model, which this object keeps for itself: its attention becomes tree attention
    """

    feature_layers: tuple[int, ...] = ()

    def __init__(self, model: PreTrainedModel, vocab_size: int, tree: TreeConfig):
        if tree.children not in CHILDREN:
            raise ValueError(
                f"A small model drafts children {', '.join(CHILDREN)}, not {tree.children}: choose one of these."
            )
        check_topk(tree, vocab_size)
        self.model = Target(model, role="Draft")
        self.tree, self.dtype, self.device = tree, model.dtype, model.device
        self.vocab_size = self.draft_vocab_size = vocab_size
        self.causal_mask = causal_words(CHUNK, model.device)
        model.set_attn_implementation(attention.NAME)
        fuse(model, linear=model.device.type == "cpu")

    @classmethod
    def from_pretrained(cls, path: Path, target: PreTrainedModel, tree: TreeConfig) -> "CausalLmDraft":
        """Raises ValueError when the vocabulary cannot be the target's."""
        model = load_target(path, dtype=target.dtype).to(target.device)
        sizes = model.config.vocab_size, target.config.vocab_size
        if abs(sizes[0] - sizes[1]) > PADDING:
            raise ValueError(
                f"The draft model's vocabulary has {sizes[0]} tokens and the target's {sizes[1]}: "
                "use a draft model with the target's tokenizer."
            )
        return cls(model, target.config.vocab_size, tree)

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        super().start(prompt, lengths, params)
        self.unread: tuple[Tensor, Tensor] | None = (prompt, lengths)

    def make_room(self, batch: int, params: SamplingParams) -> None:
        super().make_room(batch, params)
        self.cache = self.model.new_cache(batch)

    def read_prompt(self) -> None:
        """Runs the prompts if that was not done yet: auto mode may never draft, and then saves it."""
        if self.unread is None:
            return
        (prompt, lengths), self.unread = self.unread, None
        self.cache.buffer.reserve(prompt.shape[1])
        self.model.prefill(self.readable(prompt), lengths, self.cache)
        self.first_unknown = int(lengths.min()) - 1  # row of the next commit that some request's cache lacks

    def extend(self, commit: Commit) -> None:
        """Runs the committed tokens that the cache lacks and keeps the logits after the last one, the root."""
        self.observe(commit.num_rows - 1)
        self.read_prompt()
        self.cache.buffer.reserve(commit.committed + 1 + self.tree.max_depth * self.tree.topk)
        first, self.first_unknown = self.first_unknown, 0
        outputs = []
        for start in range(first, commit.tokens.shape[1], CHUNK):
            tokens = commit.tokens[:, start : start + CHUNK]
            index = torch.arange(tokens.shape[1], dtype=torch.int32, device=tokens.device)
            context_len = commit.context_len + 1 + start
            mask = self.causal_mask[:, : len(index)].repeat(len(tokens), 1, 1)
            outputs.append(self.forward(tokens, context_len[:, None] + index, context_len, mask))
        logits = torch.cat(outputs, dim=1)
        last = (commit.num_rows.long() - 1 - first)[:, None, None]
        self.root_state = logits.gather(1, last.expand(-1, 1, logits.shape[-1]))

    def logits(self, state: Tensor) -> Tensor:
        return state

    def run(self, rows: TreeRows, fed_back: Tensor) -> Tensor:
        positions = (rows.context_len + rows.depth)[:, None].expand(rows.tokens.shape)
        return self.forward(rows.tokens, positions, rows.context_len + 1, rows.ancestor_mask, rows.first_row)

    def forward(
        self, tokens: Tensor, position_ids: Tensor, context_len: Tensor, ancestor_mask: Tensor, first_row: int = 0
    ) -> Tensor:
        """Logits [batch, rows, target vocabulary] after each row; arguments as in `Target.run`."""
        rows = self.readable(tokens), position_ids, context_len, ancestor_mask
        return self.model.run(*rows, self.cache, first_row).logits[..., : self.vocab_size]

    def readable(self, tokens: Tensor) -> Tensor:
        """Token ids that the draft's embedding has: vocabularies may be padded to different sizes."""
        return tokens.long().clamp(max=self.model.config.vocab_size - 1)


def is_causal_lm(path: Path) -> bool:
    """Whether a directory holds a whole causal language model; draft heads may call themselves one in config.json.

    Raises CheckpointError for a config.json that cannot be read.
    """
    weights = sorted(path.glob("*.safetensors"))
    if not (path / "config.json").is_file() or not weights:
        return False
    named = read_fields(path).get("architectures") or [""]
    try:
        with safe_open(weights[0], framework="pt") as tensors:
            embedded = any(name.startswith("model.") for name in tensors.keys())  # noqa: SIM118
    except SafetensorError:
        return False  # a head's reader says what is wrong with the file
    return named[0].endswith("ForCausalLM") and embedded
