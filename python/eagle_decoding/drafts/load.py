"""From what a user names to a drafting method for a loaded target."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

import eagle_kernels
from eagle_decoding.checkpoint import Eagle1Config, check_fits, depth_heads_files, read_depth_heads, read_head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import auto, causal_lm, lookahead, prompt_lookup, suffix
from eagle_decoding.drafts.base import Draft
from eagle_decoding.drafts.eagle1 import Eagle1Draft
from eagle_decoding.drafts.eagle3 import Eagle3Draft
from eagle_decoding.drafts.hybrid import HybridDraft
from eagle_decoding.drafts.hydra import HydraDraft
from eagle_decoding.drafts.layer_draft import LayerDraft
from eagle_decoding.drafts.medusa import MedusaDraft
from eagle_decoding.drafts.spelling import Spelling, read_spelling
from eagle_decoding.drafts.text import TextDraft
from eagle_decoding.matrix import FP8
from eagle_decoding.target import output_weight


def lookup_draft(tree: TreeConfig | None = None) -> TextDraft:
    tree = tree or prompt_lookup.TREE
    return TextDraft(lambda: prompt_lookup.NgramIndex(tree))


def suffix_draft(tree: TreeConfig | None = None) -> TextDraft:
    tree = tree or suffix.TREE
    return TextDraft(lambda: suffix.SuffixIndex(tree))


def lookahead_draft(tree: TreeConfig | None = None) -> lookahead.LookaheadDraft:
    return lookahead.LookaheadDraft(tree or lookahead.TREE)


def usual_tree(target: PreTrainedModel) -> TreeConfig:
    """The shape for heads where none is asked for: 12 nodes, where a dozen rows take a target little longer than one.

    Dot products of bfloat16 and GPUs keep up with the memory that weights come from. By multiply-adds of single numbers
    a dozen rows take a CPU several times as long as one: there it is 4 nodes.
    """
    by_dots = target.dtype == torch.bfloat16 and eagle_kernels.info()["cpu_kernels"] == "avx512_bf16"
    if target.device.type != "cpu" or by_dots:
        return TreeConfig()
    return TreeConfig(num_nodes=4, max_depth=3, topk=4)


NAMED: dict[str, Callable[[TreeConfig | None], Draft]] = {
    "prompt-lookup": lookup_draft,
    "suffix": suffix_draft,
    "lookahead": lookahead_draft,
}
GRAFTED = {"prompt-lookup": prompt_lookup.TREE, "suffix": suffix.TREE}


def load_draft(
    draft: str | Path | Spelling,
    target: PreTrainedModel,
    tree: TreeConfig | None = None,
    dtype: torch.dtype | None = None,
) -> Draft:
    """Loads a drafting method.

    draft: a name from NAMED; a directory or hub id with a draft head or with a small causal language model;
           static:SOURCE, either of them, for EAGLE-1's static tree, filled by a head of the EAGLE family;
           suffix+SOURCE or prompt-lookup+SOURCE for both at once under one node budget;
           auto:DRAFT for any of these where it pays and plain decoding elsewhere
    tree:  shape of the trees, for auto the largest; None takes the method's own
    dtype: torch.float8_e4m3fn serves the matrices of an EAGLE head in fp8; None in the target's dtype

    Raises ValueError for a draft that is neither here nor on the hub, when what lies in it does not fit the target,
    naming what differs, and for a dtype that the method cannot be served in.
    """
    spelling = draft if isinstance(draft, Spelling) else read_spelling(draft)
    if not isinstance(tree, TreeConfig | None):
        raise ValueError(f"tree must be a TreeConfig, got {tree!r}: write TreeConfig(num_nodes, max_depth, topk).")
    if dtype not in (None, FP8):
        raise ValueError(f"A draft is served in {FP8} or, with None, in the target's dtype: {dtype} is neither.")
    if spelling.auto:
        return auto_draft(spelling, target, tree, dtype)
    if spelling.directory is None:
        refuse_fp8(spelling.source, dtype)
        return NAMED[spelling.source](tree)
    if spelling.static:
        return static_draft(spelling, target, tree or usual_tree(target), dtype)
    if spelling.grafted is None:
        return load_directory(spelling, target, tree, dtype)
    if tree and tree.drawn:
        raise ValueError(f"{spelling} cannot graft branches into a tree of drawn children, take likeliest or coupled.")
    first, budget = load_directory(spelling, target, tree, dtype), (tree or usual_tree(target)).num_nodes
    second = NAMED[spelling.grafted](replace(GRAFTED[spelling.grafted], num_nodes=budget))
    return HybridDraft(first, second, budget)


def refuse_fp8(draft: str, dtype: torch.dtype | None) -> None:
    if dtype is not None:
        raise ValueError(f"{draft} cannot be served in {dtype}, only heads of the EAGLE family can: leave it out.")


def auto_draft(
    spelling: Spelling, target: PreTrainedModel, tree: TreeConfig | None, dtype: torch.dtype | None
) -> auto.AutoDraft:
    bounds = tree or (auto.TREE if spelling.directory else auto.TEXT_TREE)
    if spelling == Spelling("lookahead", auto=True) or bounds.drawn:
        raise ValueError(
            f"{spelling} cannot rank its drafts: lookahead's have no scores, drawn ones must all be verified."
        )
    return auto.AutoDraft(load_draft(replace(spelling, auto=False), target, bounds, dtype), bounds.num_nodes, target)


def static_draft(
    spelling: Spelling, target: PreTrainedModel, tree: TreeConfig, dtype: torch.dtype | None
) -> LayerDraft:
    draft = load_directory(spelling, target, replace(tree, static=True), dtype)
    if not isinstance(draft, LayerDraft):
        raise ValueError(f"{spelling} needs a head of the EAGLE family: leave out static: for other drafts.")
    return draft


def load_directory(
    spelling: Spelling, target: PreTrainedModel, tree: TreeConfig | None, dtype: torch.dtype | None
) -> Draft:
    """The method that a directory's files belong to: a causal language model, Medusa or Hydra heads, an EAGLE head."""
    path = spelling.directory
    assert path is not None
    if causal_lm.is_causal_lm(path):
        refuse_fp8(spelling.source, dtype)
        return causal_lm.CausalLmDraft.from_pretrained(path, target, tree or causal_lm.TREE)
    tree = tree or usual_tree(target)
    if depth_heads_files(path):
        refuse_fp8(spelling.source, dtype)
        heads = read_depth_heads(path, target.config)
        return HydraDraft(heads, target, tree) if heads.config.reads_path else MedusaDraft(heads, target, tree)
    head = read_head(path)
    check_fits(head.config, target.config)
    embedding, layers = target.get_input_embeddings().weight, target.config.num_hidden_layers
    if isinstance(head.config, Eagle1Config):
        return Eagle1Draft(head, embedding, output_weight(target), layers, tree, target.dtype, target.device, dtype)
    return Eagle3Draft(head, embedding, layers, tree, target.dtype, target.device, dtype)
