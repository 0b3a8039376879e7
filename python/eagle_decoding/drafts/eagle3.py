"""EAGLE-3: one decoder layer over fused target features drafts a dynamic tree (Li et al. 2025, arXiv 2503.01840)."""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.cache import KvBuffer
from eagle_decoding.checkpoint import Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit
from eagle_decoding.drafts.coupled import coupled_topk
from eagle_decoding.drafts.drawn import propose_drawn
from eagle_decoding.drafts.rope import RopeTable
from eagle_decoding.drafts.rules import RULES, RuleChooser
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree

CHUNK = 64  # committed rows run through the head at a time: one mask word


class Eagle3Draft:
    """Runs an EAGLE-3 head and grows its trees (expand and re-rank as in EAGLE-2, arXiv 2406.16858).

    The pair (feature of position i, token at i + 1) occupies row i of the draft cache. Committed rows always come
    from the target's true features; rows of a tree under construction lie behind them, until the next commit.
    """

    def __init__(
        self,
        head: Head,
        embed_weight: Tensor,
        num_target_layers: int,
        tree: TreeConfig,
        dtype: torch.dtype,
        device: torch.device,
    ):
        config, tensors = head.config, {name: t.to(device) for name, t in head.tensors.items()}
        self.config, self.tree, self.dtype, self.device = config, tree, dtype, device
        self.feature_layers = config.layer_ids(num_target_layers)
        self.scale = config.head_dim**-0.5
        self.rope = RopeTable(config, device)
        self.causal_mask = causal_words(CHUNK, device)

        def weight(name: str) -> Tensor:
            return tensors[name].to(dtype).contiguous()

        layer = "layers.0."
        self.fc = weight("fc.weight")
        self.fc_norms = [weight(f"fc_norm.{i}.weight") for i in range(config.num_aux)] if config.fc_norm else []
        self.input_norm = weight("input_norm.weight") if config.norm_before_fc else None
        self.embed = weight("embed_tokens.weight") if "embed_tokens.weight" in tensors else embed_weight
        self.embed_norm = weight(layer + "input_layernorm.weight")
        self.hidden_norm = weight(layer + "hidden_norm.weight")
        self.qkv = torch.cat([weight(f"{layer}self_attn.{x}_proj.weight") for x in "qkv"])
        self.qkv_bias = (
            torch.cat([weight(f"{layer}self_attn.{x}_proj.bias") for x in "qkv"]) if config.attention_bias else None
        )
        self.output = weight(layer + "self_attn.o_proj.weight")
        self.mlp_norm = weight(layer + "post_attention_layernorm.weight")
        self.gate_up = torch.cat([weight(f"{layer}mlp.{x}_proj.weight") for x in ("gate", "up")])
        self.down = weight(layer + "mlp.down_proj.weight")
        self.norm = weight("norm.weight")
        self.lm_head = weight("lm_head.weight")
        self.d2t = tensors["d2t"].to(torch.int32) if "d2t" in tensors else None

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        config = self.config
        self.params = params
        sampling = bool((params.temperature > 0).any())
        self.coupled = sampling and self.tree.children == "coupled"
        self.filtered = bool(((params.top_k > 0) | (params.top_p < 1) | (params.min_p > 0)).any())
        self.drawn = sampling and self.tree.children in ("sampled", "hybrid", "auto")
        self.chooser = RuleChooser(len(prompt), self.device) if self.tree.children == "auto" else None
        if self.tree.children in RULES:
            self.rule = torch.full((len(prompt),), RULES.index(self.tree.children), device=self.device)
        self.cache = KvBuffer(1, len(prompt), config.num_kv_heads, config.head_dim, self.dtype, self.device)

    def extend(self, commit: Commit) -> None:
        """Rebuilds the draft cache from true features and keeps the state that predicts the root's children."""
        rows = commit.tokens.shape[1]
        if self.chooser is not None:
            self.chooser.observe(commit.num_rows - 1)
        self.cache.reserve(commit.committed + self.tree.max_depth * self.tree.topk)
        hidden = self.fuse(commit.features)
        outputs = []
        for start in range(0, rows, CHUNK):
            chunk = slice(start, min(start + CHUNK, rows))
            index = torch.arange(chunk.start, chunk.stop, device=self.device, dtype=torch.int32)
            outputs.append(
                self.forward(
                    commit.tokens[:, chunk].contiguous(),
                    hidden[:, chunk].contiguous(),
                    commit.position_ids[:, chunk].contiguous(),
                    commit.context_len + start,
                    self.causal_mask[:, : len(index)].repeat(len(hidden), 1, 1),
                    torch.where(index < commit.num_rows[:, None], commit.context_len[:, None] + index, -1),
                )
            )
        last = (commit.num_rows.long() - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        self.root_state = torch.cat(outputs, dim=1).gather(1, last)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        """Grows max_depth levels of topk nodes, then keeps the best num_nodes of everything that was looked at."""
        if self.drawn:
            if self.chooser is not None:
                self.rule = self.chooser.choose()
            return propose_drawn(self, root_tokens, context_len)
        tree, batch = self.tree, len(root_tokens)
        scores = torch.zeros(batch, tree.num_candidates, device=self.device)
        tokens = root_tokens[:, None].repeat(1, tree.num_candidates)
        parents = torch.full_like(tokens, -1)
        words = max(1, -(-(tree.max_depth - 1) * tree.topk // 64))
        frontier = (
            torch.zeros(batch, 1, device=self.device),
            torch.zeros(batch, 1, dtype=torch.int32, device=self.device),
            torch.zeros(batch, 1, words, dtype=torch.int64, device=self.device),
        )
        state, slot, row = self.root_state, 1, 0
        for level in range(tree.max_depth):
            fed_back, logprobs, children = self.predict(state, context_len + level + 1)
            next_scores, next_slots, next_tokens, origin, mask = eagle_kernels.expand_tree(
                *frontier, logprobs, children, scores, tokens, parents, slot, row
            )
            if level + 1 == tree.max_depth:
                break
            hidden = fed_back if self.config.norm_output else state
            index = torch.arange(tree.topk, device=self.device, dtype=torch.int32)
            state = self.forward(
                next_tokens,
                hidden.gather(1, origin.long()[..., None].expand(-1, -1, hidden.shape[-1])),
                (context_len + level)[:, None].expand(-1, tree.topk).contiguous(),
                context_len,
                mask,
                context_len[:, None] + row + index,
            )
            slot += children.shape[1] * tree.topk
            row += tree.topk
            frontier = (next_scores, next_slots, mask)
        draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots = eagle_kernels.build_tree(
            scores, tokens, parents, context_len, tree.num_nodes
        )
        node_scores = scores.gather(1, node_slots.clamp(min=0).long())
        return DraftTree(draft_tokens, parent, depth, position_ids, ancestor_mask, node_scores, tree.max_depth)

    def predict(self, state: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed states, and the log-probabilities and tokens of the topk children of each row.

        position_ids: [batch] int32, position of the children
        """
        eps, k = self.config.rms_norm_eps, self.tree.topk
        if not self.coupled:
            return eagle_kernels.lm_head_topk(state, self.norm, eps, self.lm_head, k, self.d2t)[:3]
        normed = eagle_kernels.rms_norm(state, self.norm, eps)
        logits = eagle_kernels.linear(normed, self.lm_head)
        vocab_size = self.config.vocab_size
        return normed, *coupled_topk(logits, position_ids, self.params, k, self.d2t, vocab_size, self.filtered)

    def fuse(self, features: Tensor) -> Tensor:
        """fc over the low, middle and high features: [batch, rows, 3 * target_hidden] -> [batch, rows, hidden]."""
        eps = self.config.rms_norm_eps
        if self.fc_norms:
            chunks = features.chunk(len(self.fc_norms), dim=-1)
            normed = [eagle_kernels.rms_norm(c, w, eps) for c, w in zip(chunks, self.fc_norms, strict=True)]
            features = torch.cat(normed, dim=-1)
        if self.input_norm is not None:
            features = eagle_kernels.rms_norm(features, self.input_norm, eps)
        return eagle_kernels.linear(features, self.fc)

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        position_ids: Tensor,
        context_len: Tensor,
        ancestor_mask: Tensor,
        cache_rows: Tensor,
    ) -> Tensor:
        """The decoder layer over rows of (token, hidden state): [batch, rows, hidden] before the final norm.

        ancestor_mask: bits over cache rows behind context_len
        cache_rows:    where each row's key and value go, -1 nowhere
        """
        config, eps = self.config, self.config.rms_norm_eps
        keys, values = self.cache.keys[0], self.cache.values[0]
        x = eagle_kernels.draft_input(tokens, hidden, self.embed, self.embed_norm, self.hidden_norm, eps)
        cos, sin = self.rope.up_to(self.cache.capacity + self.tree.max_depth)
        query = eagle_kernels.draft_qkv_rope(
            x, self.qkv, self.qkv_bias, cos, sin, position_ids, keys, values, cache_rows, config.num_heads
        )
        attention = eagle_kernels.tree_attention(query, keys, values, context_len, ancestor_mask, self.scale)
        residual = x[..., -config.hidden_size :] if config.norm_before_residual else hidden
        hidden, normed = eagle_kernels.draft_output(
            attention.flatten(2), self.output, residual.contiguous(), self.mlp_norm, eps
        )
        return eagle_kernels.draft_mlp(normed, self.gate_up, self.down, hidden)


def causal_words(rows: int, device: torch.device) -> Tensor:
    """[1, rows, 1] int64 mask words of a chain: row i sees rows 0..i; rows <= 64."""
    words = [(1 << (i + 1)) - 1 for i in range(rows)]
    signed = [word - (1 << 64) if word >> 63 else word for word in words]
    return torch.tensor(signed, dtype=torch.int64, device=device)[None, :, None]
