"""gumbel_noise in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.elementary import gumbel
from eagle_kernels.triton.common.philox import philox_bits

BLOCK = 1024


# grid: (blocks of tokens, batch * rows)
@triton.jit
def gumbel_noise_kernel(seed_ptr, position_ptr, noise_ptr, num_rows, num_tokens, stream, BLOCK: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    first_token = tl.program_id(0) * BLOCK
    token = first_token + tl.arange(0, BLOCK)
    bits = philox_bits(tl.load(seed_ptr + row // num_rows), tl.load(position_ptr + row), stream, first_token, BLOCK)
    tl.store(noise_ptr + row * num_tokens + token, gumbel(bits), mask=token < num_tokens)


def gumbel_noise(seed: Tensor, position_ids: Tensor, num_tokens: int, stream: int) -> Tensor:
    batch, num_rows = position_ids.shape
    noise = torch.empty(batch, num_rows, num_tokens, dtype=torch.float32, device=seed.device)
    if noise.numel():
        gumbel_noise_kernel[(triton.cdiv(num_tokens, BLOCK), batch * num_rows)](
            seed, position_ids.contiguous(), noise, num_rows, num_tokens, stream, BLOCK=BLOCK, enable_fp_fusion=False
        )
    return noise
