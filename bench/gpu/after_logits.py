"""From logits to a compacted cache: the walks over a tree, coupled and by rejection, and the move of accepted rows."""

from dataclasses import replace

import torch

import eagle_kernels
from bench import bench_compact_kv, bench_sample_tokens, bench_verify_rejection, bench_verify_tree
from bench.gpu.rows import DeviceMaker, Rows, in_turn, sets_of
from eagle_decoding.floor.work import Work
from eagle_decoding.numerics.cases import Sizes

ACCEPTED = 8  # rows that are moved
CALLS = 20  # of a few microseconds each from one graph, whose own launch takes as long and is not what is asked for


def add_sample_and_walk(rows: Rows, sizes: Sizes, settings: str) -> None:
    """A token for every node and the walk; settings: a name of bench/sampling_cases.py."""
    make = DeviceMaker(torch.bfloat16, rows.watch.device)
    sampling = bench_sample_tokens.case(sizes, make, settings)
    walk = bench_verify_tree.case(sizes, make)
    draft_tokens, parent, _, max_depth = walk.arguments

    def ours(*arguments: object) -> object:
        return eagle_kernels.verify_tree(draft_tokens, parent, eagle_kernels.sample_tokens(*arguments), max_depth)

    def in_torch(*arguments: object) -> object:
        return walk.in_torch(draft_tokens, parent, sampling.in_torch(*arguments), max_depth)

    sets = sets_of(sampling.arguments, sampling.bytes)
    work = Work(sampling.bytes + walk.bytes, sampling.flops)
    rivals = {"torch": lambda: in_turn(in_torch, sets)}
    rows.add("sample and walk", in_turn(ours, sets), work, rivals, settings=settings, nodes=sizes.num_nodes)


def add_rejection(rows: Rows, sizes: Sizes, settings: str) -> None:
    """The walk over a tree of sampled children, settings as above. The rival does not filter."""
    make = DeviceMaker(torch.bfloat16, rows.watch.device)
    walk = bench_verify_rejection.case(sizes, make, settings)
    sets = sets_of(walk.arguments, sum(logits.nbytes for logits in walk.arguments[:2]))
    rivals = {"torch, walked by the host": lambda: in_turn(walk.in_torch, sets)}
    calls = in_turn(eagle_kernels.verify_rejection, sets)
    unfiltered = settings == "temperature"
    work, about = Work(walk.bytes, walk.flops), {"settings": settings, "nodes": sizes.num_nodes}
    rows.add("verify_rejection", calls, work, rivals if unfiltered else {}, **about)


def add_compaction(rows: Rows, sizes: Sizes) -> None:
    """Accepted rows of all layers of the target and of one of the head.

    The same caches every time: a round finds these rows in the second-level cache too, as verification just wrote them.
    """
    make = DeviceMaker(torch.bfloat16, rows.watch.device)
    layers = sizes.num_layers + 1
    moved = bench_compact_kv.case(replace(sizes, num_layers=layers, max_depth=ACCEPTED), make, ACCEPTED)
    ours = in_turn(eagle_kernels.compact_kv, CALLS * [moved.arguments])
    rivals = {"torch": lambda: in_turn(moved.in_torch, CALLS * [moved.arguments])}
    rows.add("compact_kv", ours, Work(moved.bytes, moved.flops), rivals, rows=ACCEPTED, layers=layers)
