"""From what a user names to a drafting method for a loaded target."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from eagle_decoding.checkpoint import check_fits, read_head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import causal_lm, lookahead, prompt_lookup, suffix
from eagle_decoding.drafts.base import Draft
from eagle_decoding.drafts.causal_lm import CausalLmDraft, is_causal_lm
from eagle_decoding.drafts.eagle3 import Eagle3Draft
from eagle_decoding.drafts.hybrid import HybridDraft
from eagle_decoding.drafts.text import TextDraft


def lookup_draft(tree: TreeConfig | None = None) -> TextDraft:
    tree = tree or prompt_lookup.TREE
    return TextDraft(lambda: prompt_lookup.NgramIndex(tree), tree.num_nodes)


def suffix_draft(tree: TreeConfig | None = None) -> TextDraft:
    tree = tree or suffix.TREE
    return TextDraft(lambda: suffix.SuffixIndex(tree), tree.num_nodes)


def lookahead_draft(tree: TreeConfig | None = None) -> lookahead.LookaheadDraft:
    return lookahead.LookaheadDraft(tree or lookahead.TREE)


NAMED: dict[str, Callable[[TreeConfig | None], Draft]] = {
    "prompt-lookup": lookup_draft,
    "suffix": suffix_draft,
    "lookahead": lookahead_draft,
}
GRAFTED = ("prompt-lookup", "suffix")  # methods that may precede a directory: suffix+DIRECTORY


def load_draft(draft: str | Path, target: PreTrainedModel, tree: TreeConfig | None = None) -> Draft:
    """Loads a drafting method.

    draft: a name from NAMED, a directory with a draft head or with a small causal language model, or
           prompt-lookup+DIRECTORY or suffix+DIRECTORY for both at once under one node budget
    tree:  shape of the trees; None takes the method's own

    Raises ValueError when what lies in the directory does not fit the target, naming what differs.
    """
    if str(draft) in NAMED:
        return NAMED[str(draft)](tree)
    name, plus, directory = str(draft).partition("+")
    if plus and name in GRAFTED:
        grown = load_draft(directory, target, tree)
        return HybridDraft(grown, NAMED[name](None), (tree or TreeConfig()).num_nodes)
    return load_directory(Path(draft), target, tree)


def load_directory(path: Path, target: PreTrainedModel, tree: TreeConfig | None) -> Draft:
    """The method that a directory's files belong to: a causal language model by its config.json, else an EAGLE-3 head."""
    if is_causal_lm(path):
        return CausalLmDraft.from_pretrained(path, target, tree or causal_lm.TREE)
    tree = tree or TreeConfig()
    if tree.drawn:
        raise ValueError("tree.drawn is for small causal language models: EAGLE-3 trees are chosen, leave it out.")
    head = read_head(path)
    check_fits(head.config, target.config)
    embedding = target.get_input_embeddings().weight
    return Eagle3Draft(head, embedding, target.config.num_hidden_layers, tree, target.dtype, target.device)
