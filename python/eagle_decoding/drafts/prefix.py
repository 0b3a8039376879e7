"""Hydra++'s prefix layer: one Llama layer over the target's states of everything that was committed."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.checkpoint import DepthHeads
from eagle_decoding.drafts.base import Commit, last_rows
from eagle_decoding.drafts.decoder_layer import DecoderLayer


class PrefixLayer:
    """Keeps the layer's keys and values of the committed rows; only true states enter it, so nothing is undone."""

    def __init__(self, heads: DepthHeads, dtype: torch.dtype, device: torch.device):
        assert heads.config.prefix is not None
        self.eps = heads.config.prefix.rms_norm_eps
        self.layer = DecoderLayer(heads.config.prefix, heads.tensors, "prefix.layer.", 0, dtype, device, dtype)
        self.input_norm = heads.tensors["prefix.layer.input_layernorm.weight"].to(device, dtype)
        self.norm = heads.tensors["prefix.norm.weight"].to(device, dtype)

    def start(self, batch: int) -> None:
        self.layer.start(batch)

    def extend(self, commit: Commit) -> Tensor:
        """Runs the committed states through the layer; [batch, 1, hidden], normed, after each request's last one."""

        def enter(rows: slice) -> tuple[Tensor, Tensor]:
            states = commit.features[:, rows].contiguous()
            return eagle_kernels.rms_norm(states, self.input_norm, self.eps), states

        last = last_rows(self.layer.commit(commit, enter), commit.num_rows)
        return eagle_kernels.rms_norm(last, self.norm, self.eps)
