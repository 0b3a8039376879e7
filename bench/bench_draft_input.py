"""draft_input: embedding, two norms and their concatenation, against torch's pieces."""

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes

EMBEDDING_ROWS = 8192


def case(s: Sizes, make: Maker) -> Case:
    token_ids = make.integers(0, EMBEDDING_ROWS, s.batch, s.topk)
    hidden, norm = make.normal(s.batch, s.topk, s.hidden_size), make.normal(s.hidden_size) + 1
    embedding = make.normal(EMBEDDING_ROWS, s.hidden_size)  # a few rows are read, wherever they lie
    num_bytes = 4 * nbytes(hidden) + 2 * nbytes(norm)
    return Case((token_ids, hidden, embedding, norm, norm, 1e-5), num_bytes, 8 * hidden.numel(), in_torch)


def in_torch(
    token_ids: Tensor, hidden_states: Tensor, embedding: Tensor, embed_norm: Tensor, hidden_norm: Tensor, eps: float
) -> Tensor:
    embedded = rms_norm(embedding[token_ids], embed_norm.shape, embed_norm, eps)
    return torch.cat([embedded, rms_norm(hidden_states, hidden_norm.shape, hidden_norm, eps)], dim=-1)


bench_draft_input = op_benchmark("draft_input", case, ("batch", "topk"))
