"""What Medusa and Hydra share when they draft: a head's blocks and projection, and the tree that all heads fill."""

import torch
import torch.nn.functional as F
from torch import Tensor

import eagle_kernels
from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.static_tree import StaticTree, best_paths, published_paths


class HeadStack:
    """The heads' weights on a device, and their forward (Cai et al. 2024, arXiv 2401.10774, section 3.1)."""

    def __init__(self, heads: DepthHeads, lm_head: Tensor, dtype: torch.dtype, device: torch.device):
        """lm_head [V, H]: the target's, for heads without projections of their own."""
        self.config = heads.config
        first = {f"heads.{head}.blocks.0.weight": heads.first_block(head) for head in range(heads.config.num_heads)}
        self.weights = {
            name: tensor.to(device, dtype).contiguous()
            for name, tensor in (heads.tensors | first).items()
            if name.startswith("heads.")
        }
        self.d2t = heads.tensors["d2t"].to(device, torch.int32) if heads.config.has_reduced_vocab else None
        if not heads.config.own_lm_head:
            kept = slice(None) if self.d2t is None else self.d2t + torch.arange(len(self.d2t), device=device)
            self.lm_head = lm_head.detach()[kept].to(dtype).contiguous()

    def hidden(self, head: int, inputs: Tensor) -> Tensor:
        """Blocks x + silu(W x + b): [..., input_size] -> [..., hidden]; the first adds the state, or a projection."""
        prefix = f"heads.{head}."
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

    def candidates(self, head: int, inputs: Tensor, topk: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens: [batch, rows, input_size] -> log-probabilities and target ids [batch, rows, topk]."""
        logits = self.logits(head, inputs)
        logprobs, token_ids, _ = eagle_kernels.topk_logprobs(logits.flatten(0, 1), topk, self.d2t)
        return logprobs.view(*logits.shape[:2], topk), token_ids.view(*logits.shape[:2], topk)

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        return eagle_kernels.linear(inputs, self.weights[name + ".weight"], self.weights.get(name + ".bias"))


def static_tree(heads: DepthHeads, tree: TreeConfig, device: torch.device) -> StaticTree:
    """The tree these heads fill: the best one for the accuracies measured with them, else the published one."""
    config, measured = heads.config, heads.config.rank_accuracy
    limits = TreeConfig(tree.num_nodes, tree.max_depth, min(tree.topk, config.draft_vocab_size))
    paths = best_paths(measured, limits) if measured else published_paths(limits)
    return StaticTree([path for path in paths if len(path) <= config.num_heads], device)
