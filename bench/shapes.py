"""Shapes that benches and compile checks share: models by name, and what a decoding round asks of them."""

from dataclasses import dataclass, replace

from eagle_decoding.numerics.cases import Sizes


@dataclass(frozen=True)
class ModelShape:
    """A target and its EAGLE-3 head; the head's layer has the target's widths."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int
    vocab_size: int
    draft_vocab_size: int

    def per_rank(self, ranks: int) -> "ModelShape":
        """What one of `ranks` tensor-parallel GPUs holds: heads, intermediate and vocabulary rows are divided."""
        return replace(
            self,
            intermediate_size=self.intermediate_size // ranks,
            num_heads=self.num_heads // ranks,
            num_kv_heads=max(1, self.num_kv_heads // ranks),
            vocab_size=self.vocab_size // ranks,
            draft_vocab_size=self.draft_vocab_size // ranks,
        )


@dataclass(frozen=True)
class Workload:
    """One round: `batch` requests, each with `context_len` committed rows and a tree of `num_nodes`."""

    batch: int
    context_len: int
    num_nodes: int
    max_depth: int
    topk: int


MODELS = {
    "SmolLM2-135M": ModelShape(576, 1536, 9, 3, 64, 30, 49152, 32000),
    "Qwen3-0.6B": ModelShape(1024, 3072, 16, 8, 128, 28, 151936, 32000),
    "Llama-3.1-8B": ModelShape(4096, 14336, 32, 8, 128, 32, 128256, 32000),
    "Llama-3.3-70B, TP 4": ModelShape(8192, 28672, 64, 8, 128, 80, 128256, 32000).per_rank(4),
    "Llama-3.3-70B, TP 8": ModelShape(8192, 28672, 64, 8, 128, 80, 128256, 32000).per_rank(8),
}
SHORT_MODELS = ("SmolLM2-135M", "Qwen3-0.6B")

WORKLOADS = {
    "chat": Workload(batch=1, context_len=1024, num_nodes=60, max_depth=6, topk=10),
    "small tree": Workload(batch=1, context_len=1024, num_nodes=10, max_depth=4, topk=4),
    "long context": Workload(batch=1, context_len=32768, num_nodes=60, max_depth=6, topk=10),
    "serving": Workload(batch=16, context_len=4096, num_nodes=24, max_depth=5, topk=4),
    "wide tree": Workload(batch=4, context_len=2048, num_nodes=128, max_depth=8, topk=16),
}


def workload(batch: int, context_len: int, num_nodes: int) -> Workload:
    """A round whose tree has the depth and branching that suit its number of nodes."""
    for nodes, max_depth, topk in ((16, 4, 4), (32, 5, 4), (64, 6, 10), (128, 8, 16)):
        if num_nodes <= nodes:
            return Workload(batch, context_len, num_nodes, max_depth, topk)
    raise ValueError(f"A tree has at most 128 nodes, got {num_nodes}: choose a smaller one.")


def sizes(model: str, batch: int = 1, context_len: int = 1024, num_nodes: int = 8) -> Sizes:
    """A model of MODELS and a round, as the makers of inputs take them."""
    if model not in MODELS:
        raise ValueError(f"Model {model!r} has no listed shape, choose from: {'; '.join(MODELS)}.")
    return Sizes(**vars(MODELS[model]), **vars(workload(batch, context_len, num_nodes)))
