"""Tiny random models, heads and drafts for the decoding tests."""

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.drafts import Commit, Eagle3Draft
from eagle_decoding.tree import DraftTree, ancestor_words

VOCAB = 97
PAD, BOS, EOS = 0, 1, 2

WINDOWS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama-scaled-rope": (
        LlamaForCausalLM,
        LlamaConfig,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            "attention_bias": True,
        },
    ),
    "vicuna": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 4}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "mixtral": (
        MixtralForCausalLM,
        MixtralConfig,
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None, "hidden_act": "silu"},
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 24}),
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {
            "head_dim": 24,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
    ),
    "phi3": (Phi3ForCausalLM, Phi3Config, {}),
    "phi3-partial-rope": (
        Phi3ForCausalLM,
        Phi3Config,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config, {"no_rope_layers": [1, 0, 1, 1]}),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, {}),
    "granite": (
        GraniteForCausalLM,
        GraniteConfig,
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 2.0,
        },
    ),
    "glm4": (Glm4ForCausalLM, Glm4Config, {"head_dim": 16}),
    "gemma3": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 128,
            "layer_types": WINDOWS,
            "tie_word_embeddings": False,  # the same token would come again and again
            "intermediate_size": 64,  # whole vectors: torch's GELU rounds what is left over by another function
        },
    ),
    "gpt-oss": (
        GptOssForCausalLM,
        GptOssConfig,
        {
            "head_dim": 16,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "sliding_window": 128,
            "layer_types": WINDOWS,
        },
    ),
    "olmo3": (Olmo3ForCausalLM, Olmo3Config, {"sliding_window": 128, "layer_types": WINDOWS}),
}

EXPERTS = ("mixtral", "qwen3-moe", "gpt-oss")


def tiny_target(kind: str = "llama", dtype: torch.dtype = torch.float32, **options: object) -> PreTrainedModel:
    """Four layers, width 32, grouped-query attention, weights large enough for varied text."""
    model_class, config_class, extra = KINDS[kind]
    torch.manual_seed(len(kind))
    config = config_class(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        **{"num_key_value_heads": 2, "intermediate_size": 48, **extra, **options},
    )
    return model_class(config).to(dtype).eval()


def random_head(target: PreTrainedModel, draft_vocab: int = VOCAB, **options: object) -> Head:
    """An EAGLE-3 head with random weights that fits the target."""
    config = HeadConfig(
        hidden_size=32,
        intermediate_size=40,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=VOCAB,
        draft_vocab_size=draft_vocab,
        target_hidden_size=32,
        **{"aux_layer_ids": (1, 2, 4)} | options,
    )
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        tensors[name] = torch.rand(shape) + 0.5 if len(shape) == 1 else torch.randn(shape) * 0.3
    kept = torch.randperm(VOCAB)[:draft_vocab].sort().values
    if "d2t" in tensors:
        tensors["d2t"] = kept - torch.arange(draft_vocab)
    tensors["lm_head.weight"] = target.get_output_embeddings().weight.detach()[kept].float()
    return Head(config, tensors)


def eagle_draft(
    target: PreTrainedModel, tree: TreeConfig | None = None, draft_vocab: int = VOCAB, **options: object
) -> Eagle3Draft:
    head = random_head(target, draft_vocab, **options)
    tree = tree or TreeConfig(num_nodes=12, max_depth=3, topk=3)
    embed = target.get_input_embeddings().weight
    layers = target.config.num_hidden_layers
    return Eagle3Draft(head, embed, layers, tree, target.dtype, target.device)


def eagle_decoder(
    target: PreTrainedModel, tree: TreeConfig | None = None, draft_vocab: int = VOCAB, **options: object
) -> SpeculativeDecoder:
    return SpeculativeDecoder(target, eagle_draft(target, tree, draft_vocab, **options))


@dataclass
class ScriptedDraft:
    """Proposes random trees; a child of a right path is right with probability `accuracy`.

    texts: what plain decoding emits for each request, prompt included (padding excluded)
    """

    texts: list[list[int]]
    accuracy: float
    num_nodes: int
    seed: int = 0
    feature_layers: tuple[int, ...] = ()
    proposed: list[DraftTree] = field(default_factory=list)

    def start(self, prompt, lengths, params) -> None:
        self.random = random.Random(self.seed)

    def extend(self, commit: Commit) -> None:
        pass

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        rows = [
            self.grow(text, int(root), int(length))
            for text, root, length in zip(self.texts, root_tokens, context_len, strict=True)
        ]
        device = context_len.device
        tokens, parent, depth = (torch.tensor(c, dtype=torch.int32, device=device) for c in zip(*rows, strict=True))
        mask = torch.stack([ancestor_words(parents, device) for _, parents, _ in rows])
        positions = context_len[:, None] + depth
        tree = DraftTree(tokens, parent, depth, positions, mask, None, max_depth=self.num_nodes - 1)
        self.proposed.append(tree)
        return tree

    def grow(self, text: list[int], root: int, length: int) -> tuple[list[int], list[int], list[int]]:
        tokens, parent, depth, right = [root], [-1], [0], [True]
        while len(tokens) < self.num_nodes:
            up = self.random.choice(range(len(tokens)))
            position = length + depth[up] + 1
            hit = right[up] and position < len(text) and self.random.random() < self.accuracy
            tokens.append(text[position] if hit else self.random.randrange(VOCAB))
            parent.append(up)
            depth.append(depth[up] + 1)
            right.append(right[up] and position < len(text) and tokens[-1] == text[position])
        return tokens, parent, depth


def prompts(batch: int, length: int = 11) -> dict[str, Tensor]:
    """Left-padded prompts of different lengths."""
    generator = torch.Generator().manual_seed(batch)
    input_ids = torch.randint(3, VOCAB, (batch, length), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for b in range(1, batch):
        attention_mask[b, : (3 * b) % (length - 1)] = 0
    return {"input_ids": input_ids.masked_fill(attention_mask == 0, PAD), "attention_mask": attention_mask}
