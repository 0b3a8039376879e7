"""The products of a Llama layer and of the output projection for few rows, beside torch's."""

import torch
from torch.nn import functional

import eagle_kernels
from bench.gpu.rows import DeviceMaker, Rows, in_turn, sets_of
from eagle_decoding.floor.work import Work
from eagle_decoding.numerics.cases import Sizes


def shapes(s: Sizes) -> dict[str, tuple[int, int]]:
    """(inner, outputs) of each."""
    return {
        "qkv": (s.hidden_size, (s.num_heads + 2 * s.num_kv_heads) * s.head_dim),
        "output": (s.num_heads * s.head_dim, s.hidden_size),
        "gate and up": (s.hidden_size, 2 * s.intermediate_size),
        "down": (s.intermediate_size, s.hidden_size),
        "lm_head": (s.hidden_size, s.vocab_size),
    }


def add_products(rows: Rows, sizes: Sizes, num_rows: int) -> None:
    make = DeviceMaker(torch.bfloat16, rows.watch.device)
    for name, (inner, outputs) in shapes(sizes).items():
        input, weight = make.normal(num_rows, inner), make.weight(outputs, inner)
        sets = [(input, *weights) for weights in sets_of([weight], weight.nbytes)]
        rows.add(
            "linear",
            in_turn(eagle_kernels.linear, sets),
            Work(weight.nbytes, 2 * num_rows * inner * outputs),
            {"torch": lambda sets=sets: in_turn(functional.linear, sets)},
            product=name,
            rows=num_rows,
        )
