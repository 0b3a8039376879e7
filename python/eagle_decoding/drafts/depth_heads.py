"""What Medusa and Hydra share when they draft: a head's blocks and projection, and the tree that all heads fill."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

import eagle_kernels
from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.coupled import coupling
from eagle_decoding.drafts.static_tree import MEDUSA_PATHS, Level, StaticTree, best_paths, first_paths
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.target import output_weight
from eagle_decoding.tree import DraftTree


class HeadStack:
    """The heads' weights on a device, and their forward (Cai et al. 2024, arXiv 2401.10774, section 3.1)."""

    def __init__(self, heads: DepthHeads, lm_head: Tensor, dtype: torch.dtype, device: torch.device):
        """lm_head [V, H]: the target's, for heads without projections of their own."""
        self.config = heads.config
        self.weights = {
            name: tensor.to(device, dtype).contiguous()
            for name, tensor in heads.tensors.items()
            if name.startswith("heads.")
        }
        if heads.config.shared_path:
            for head in range(heads.config.num_heads):
                self.weights[f"path.{head}.weight"] = heads.path_sum(head).to(device, dtype).contiguous()
        self.d2t = heads.tensors["d2t"].to(device, torch.int32) if heads.config.has_reduced_vocab else None
        if not heads.config.own_lm_head:
            kept = slice(None) if self.d2t is None else self.d2t + torch.arange(len(self.d2t), device=device)
            self.lm_head = lm_head.detach()[kept].to(dtype).contiguous()

    def hidden(self, head: int, inputs: Tensor) -> Tensor:
        """Blocks x + silu(W x + b): [..., input_size] -> [..., hidden]; the first adds the state, or a projection."""
        prefix = f"heads.{head}."
        if self.config.shared_path:
            inputs = self._linear(inputs, f"path.{head}")
        residual = inputs[..., : self.config.hidden_size]
        if self.config.residual_projection:
            residual = self._linear(inputs, prefix + "residual")
        for block in self.config.blocks:
            inputs = residual = residual + F.silu(self._linear(inputs, f"{prefix}blocks.{block}"))
        return inputs

    def logits(self, head: int, inputs: Tensor) -> Tensor:
        """[..., input_size] -> [..., draft vocabulary]."""
        hidden = self.hidden(head, inputs)
        if self.config.output_map:
            hidden = self._linear(hidden, f"heads.{head}.map")
        if self.config.own_lm_head:
            return self._linear(hidden, f"heads.{head}.lm_head")
        return eagle_kernels.linear(hidden, self.lm_head)

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        return eagle_kernels.linear(inputs, self.weights[name + ".weight"], self.weights.get(name + ".bias"))


class DepthHeadDraft:
    """Fills a fixed tree depth by depth; a subclass says what a head reads (`inputs`).

    Where requests sample, candidates are ranked once the noise is known that will choose the target's token
    (coupled.py), unless the tree asks for the likeliest.

    state: [batch, 1, hidden], the target's after its final norm, at each request's last committed row
    """

    state: Tensor
    params: SamplingParams

    def __init__(self, heads: DepthHeads, target: PreTrainedModel, tree: TreeConfig):
        """Raises ValueError for a tree of drawn children: a fixed tree knows ranks only."""
        if tree.drawn:
            raise ValueError(f"Medusa and Hydra trees take likeliest or coupled children, got {tree.children!r}.")
        self.feature_layers: tuple[int, ...] = (target.config.num_hidden_layers + 1,)
        self.vocab_size, self.rule = target.config.vocab_size, tree.children
        self.heads = HeadStack(heads, output_weight(target), target.dtype, target.device)
        self.tree = tree_to_fill(heads, tree, target.device)

    def inputs(self, level: Level, tokens: Tensor) -> Tensor:
        """[batch, rows, input_size]: what the level's head reads, for each parent or, the same for all, in one row."""
        raise NotImplementedError

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        if params is not getattr(self, "params", None):
            self.make_room(len(prompt), params)

    def make_room(self, batch: int, params: SamplingParams) -> None:
        """Makes what a batch of requests needs from round to round."""
        self.params = params
        self.coupling = coupling(self.rule, params, self.vocab_size, self.heads.d2t)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        def candidates(depth: int, level: Level, tokens: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.heads.logits(depth, self.inputs(level, tokens))
            if self.coupling is not None:
                logprobs, token_ids = self.coupling.topk(logits, context_len + depth + 1, level.topk)
            else:
                logprobs, token_ids, _ = eagle_kernels.topk_logprobs(logits.flatten(0, 1), level.topk, self.heads.d2t)
            shape = (len(logits), -1, level.topk)
            parents = len(level.parents)
            return logprobs.view(shape).expand(-1, parents, -1), token_ids.view(shape).expand(-1, parents, -1)

        return self.tree.fill(root_tokens, context_len, candidates)


def tree_to_fill(heads: DepthHeads, tree: TreeConfig, device: torch.device) -> StaticTree:
    """The tree these heads fill: the best one for the accuracies measured with them, else Medusa's."""
    config, measured = heads.config, heads.config.rank_accuracy
    limits = TreeConfig(tree.num_nodes, tree.max_depth, min(tree.topk, config.draft_vocab_size))
    paths = best_paths(measured, limits) if measured else first_paths(MEDUSA_PATHS, limits)
    return StaticTree([path for path in paths if len(path) <= config.num_heads], device)
