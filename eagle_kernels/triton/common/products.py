"""Matrix products for few rows: the inner loop that streams a weight once, and the configurations it is tuned over."""

from typing import Any

import torch
import triton
import triton.language as tl

# columns of the product, depth of a step, warps, steps in flight; the first is the interpreter's and the default
PRODUCT_CONFIGS = [
    triton.Config({"BLOCK_N": columns, "BLOCK_K": depth}, num_warps=warps, num_stages=stages)
    for columns, depth, warps, stages in [(32, 128, 4, 4), (32, 256, 4, 3), (64, 64, 4, 4), (64, 128, 8, 3)]
]
PLAIN_DEPTH = 32  # of a step in float32, which tensor cores would round: its operands lie in registers


def fitting_products(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list[triton.Config]:
    """The configurations, or one in their stead for a float32 input, the kernel's first argument."""
    if next(iter(arguments.values())).dtype != torch.float32:
        return configs
    plain = {**configs[0].kwargs, "BLOCK_K": PLAIN_DEPTH}
    return [triton.Config(plain, num_warps=8, num_stages=3)]


FP8_FACTOR = tl.constexpr(256.0)  # what decode_fp8 leaves out


@triton.jit
def decode_fp8(bits):
    """e4m3 numbers divided by 256 as float16, exactly: the same fields, and biases of 7 and 15; subnormals too."""
    bits = bits.to(tl.uint16)
    return ((bits & 0x80) << 8 | (bits & 0x7F) << 7).to(tl.float16, bitcast=True)


@triton.jit
def stream_products(
    input_ptr,
    row,
    in_rows,
    input_stride,
    weight_ptr,
    scale_ptr,
    weight_row,
    in_columns,
    weight_stride,
    width,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """[BLOCK_M, BLOCK_N] float32: sum over k of input[row, k] * weight[weight_row, k], times scale[weight_row] if any.

    row, in_rows:           [BLOCK_M] int64 and whether they exist; the others read as zeros
    weight_row, in_columns: [BLOCK_N] likewise, rows of the weight
    """
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    step = tl.arange(0, BLOCK_K)
    inputs = input_ptr + row[:, None] * input_stride + step[None, :]
    weights = weight_ptr + weight_row[None, :] * weight_stride + step[:, None]
    for start in range(0, width, BLOCK_K):
        inside = start + step < width
        x = tl.load(inputs + start, mask=in_rows[:, None] & inside[None, :], other=0.0)
        w = tl.load(weights + start, mask=inside[:, None] & in_columns[None, :], other=0)
        if scale_ptr is not None:
            w = decode_fp8(w).to(x.dtype)
        sums = tl.dot(x, w, sums, input_precision="ieee")  # float32 stays float32, never TF32
    if scale_ptr is not None:
        sums *= FP8_FACTOR * tl.load(scale_ptr + weight_row, mask=in_columns, other=0.0)[None, :]
    return sums


@triton.jit
def paired_rows(pair, offset, BLOCK_N: tl.constexpr):
    """Weight rows for BLOCK_N / 2 pairs (p, p + offset), side by side: [BLOCK_N], to be taken apart by split_pairs."""
    return tl.reshape(tl.join(pair, pair + offset), (BLOCK_N,))


@triton.jit
def split_pairs(sums, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """[BLOCK_M, BLOCK_N] products of paired rows -> those of p and those of p + offset, [BLOCK_M, BLOCK_N / 2] each."""
    return tl.split(tl.reshape(sums, (BLOCK_M, BLOCK_N // 2, 2)))
