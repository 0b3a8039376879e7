"""EAGLE-3: one decoder layer over fused target features drafts a tree (Li et al. 2025, arXiv 2503.01840)."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.layer_draft import LayerDraft


class Eagle3Draft(LayerDraft):
    """Runs an EAGLE-3 head: attention reads the normed embedding beside the normed hidden state."""

    def __init__(
        self,
        head: Head,
        embed_weight: Tensor,
        num_target_layers: int,
        tree: TreeConfig,
        dtype: torch.dtype,
        device: torch.device,
        weight_dtype: torch.dtype | None = None,
    ):
        """embed_weight [V, H]: the target's embeddings, for heads without their own."""
        super().__init__(head, tree, dtype, device, weight_dtype)
        config, tensors = head.config, head.tensors
        assert isinstance(config, HeadConfig)
        self.config = config
        self.feature_layers = config.layer_ids(num_target_layers)

        def weight(name: str) -> Tensor:
            return tensors[name].to(device, dtype).contiguous()

        self.fc = self.matrix(tensors["fc.weight"])
        self.fc_norms = [weight(f"fc_norm.{i}.weight") for i in range(config.num_aux)] if config.fc_norm else []
        self.input_norm = weight("input_norm.weight") if config.norm_before_fc else None
        self.embed = weight("embed_tokens.weight") if "embed_tokens.weight" in tensors else embed_weight
        self.embed_norm = weight("layers.0.input_layernorm.weight")
        self.hidden_norm = weight("layers.0.hidden_norm.weight")
        self.norm = weight("norm.weight")
        self.lm_head = self.matrix(tensors["lm_head.weight"])

    def begin(self, features: Tensor) -> Tensor:
        """fc over the low, middle and high features: [batch, rows, 3 * target_hidden] -> [batch, rows, hidden]."""
        eps = self.config.rms_norm_eps
        if self.fc_norms:
            chunks = features.chunk(len(self.fc_norms), dim=-1)
            normed = [eagle_kernels.rms_norm(c, w, eps) for c, w in zip(chunks, self.fc_norms, strict=True)]
            features = torch.cat(normed, dim=-1)
        if self.input_norm is not None:
            features = eagle_kernels.rms_norm(features, self.input_norm, eps)
        return self.fc(features)

    def enter(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        x = eagle_kernels.draft_input(
            tokens, hidden, self.embed, self.embed_norm, self.hidden_norm, self.config.rms_norm_eps
        )
        residual = x[..., -self.config.hidden_size :].contiguous() if self.config.norm_before_residual else hidden
        return x, residual

    def logits(self, state: Tensor) -> Tensor:
        return self.lm_head(eagle_kernels.rms_norm(state, self.norm, self.config.rms_norm_eps))

    def likeliest(self, state: Tensor, topk: int) -> tuple[Tensor, Tensor, Tensor]:
        normed, logprobs, token_ids, _ = eagle_kernels.lm_head_topk(
            state, self.norm, self.config.rms_norm_eps, self.lm_head.weight, topk, self.d2t, self.lm_head.scale
        )
        return logprobs, token_ids, normed if self.config.norm_output else state

    def fed_back(self, state: Tensor) -> Tensor:
        return eagle_kernels.rms_norm(state, self.norm, self.config.rms_norm_eps) if self.config.norm_output else state
