"""Hydra++'s prefix layer: one Llama layer over the target's states of everything that was committed."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.drafts.base import Commit
from eagle_decoding.drafts.decoder_layer import CHUNK, DecoderLayer, causal_words
from eagle_decoding.drafts.depth_heads import last_rows


class PrefixLayer:
    """Keeps the layer's keys and values of the committed rows; only true states enter it, so nothing is undone."""

    def __init__(self, heads: DepthHeads, dtype: torch.dtype, device: torch.device):
        config = heads.config.prefix
        assert config is not None
        self.eps, self.device = config.rms_norm_eps, device
        self.layer = DecoderLayer(config, heads.tensors, "prefix.layer.", 0, dtype, device)
        self.input_norm = heads.tensors["prefix.layer.input_layernorm.weight"].to(device, dtype)
        self.norm = heads.tensors["prefix.norm.weight"].to(device, dtype)
        self.causal_mask = causal_words(CHUNK, device)

    def start(self, batch: int) -> None:
        self.layer.start(batch)

    def extend(self, commit: Commit) -> Tensor:
        """Runs the committed states through the layer; [batch, 1, hidden], normed, after each request's last one."""
        self.layer.reserve(commit.committed)
        batch, rows = commit.tokens.shape
        outputs = []
        for start in range(0, rows, CHUNK):
            chunk = slice(start, min(start + CHUNK, rows))
            index = torch.arange(chunk.start, chunk.stop, device=self.device, dtype=torch.int32)
            states = commit.features[:, chunk].contiguous()
            outputs.append(
                self.layer.forward(
                    eagle_kernels.rms_norm(states, self.input_norm, self.eps),
                    states,
                    commit.position_ids[:, chunk].contiguous(),
                    commit.context_len + start,
                    self.causal_mask[:, : len(index)].repeat(batch, 1, 1),
                    torch.where(index < commit.num_rows[:, None], commit.context_len[:, None] + index, -1),
                )
            )
        return eagle_kernels.rms_norm(last_rows(torch.cat(outputs, 1), commit.num_rows), self.norm, self.eps)
