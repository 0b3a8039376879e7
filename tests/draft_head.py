"""Random weights and inputs of a small draft layer, shared by the tests of its ops."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

EPS = 1e-5
# |actual - reference| <= tolerance * (1 + |reference|): one rounding to the dtype, twice where results are summed on.
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@dataclass
class DraftHead:
    """Sizes of a draft layer; weights are scaled so that projections keep the magnitude of their input."""

    dtype: torch.dtype
    device: str = "cpu"
    batch: int = 2
    rows: int = 5
    hidden: int = 72
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 20
    intermediate: int = 102
    vocabulary: int = 300
    positions: int = 50
    cache_length: int = 33
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device, self.dtype)

    def weight(self, outputs: int, inputs: int) -> Tensor:
        return (torch.randn(outputs, inputs, generator=self.generator) / inputs**0.5).to(self.device, self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator, dtype=torch.int32).to(self.device)

    def hidden_states(self) -> Tensor:
        return self.random(self.batch, self.rows, self.hidden)


def smollm2_head(dtype: torch.dtype, rows: int) -> DraftHead:
    """An EAGLE-3 head of SmolLM2-135M: 576 wide, the whole vocabulary."""
    sizes = {"hidden": 576, "heads": 9, "kv_heads": 3, "head_dim": 64, "intermediate": 1536, "vocabulary": 49152}
    return DraftHead(dtype, batch=1, rows=rows, positions=2048, cache_length=2048, **sizes)
