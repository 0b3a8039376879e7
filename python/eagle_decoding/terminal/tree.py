"""Draws a round's draft tree with the accepted path marked."""

import math
from typing import Any

from rich.text import Text
from rich.tree import Tree

from eagle_decoding.stats import Round


def draw_tree(last: Round, tokenizer: Any, request: int = 0) -> Tree:
    """A rich tree of one request's nodes: token text, draft probability given the parent if there is one, best first.

    The path that the target accepted is marked, and ends in the token that the target added by itself.
    """
    tree = last.tree
    tokens, parents = tree.draft_tokens[request].tolist(), tree.parent[request].tolist()
    scores = tree.node_scores[request].tolist() if tree.node_scores is not None else None
    path = last.accept_index[request, : int(last.accept_length[request]) + 1].tolist()

    def text(token: int) -> str:
        return repr(tokenizer.decode([token]))

    branches = {0: Tree(Text(f"{text(tokens[0])}  last committed token", style="bold"), guide_style="dim")}
    for node in range(1, len(tokens)):
        parent = parents[node]
        if parent < 0:
            continue  # padding
        probability = f"  {math.exp(scores[node] - scores[parent]):.2f}" if scores else ""
        label = Text(text(tokens[node]) + probability, style="bold green" if node in path else "dim")
        if node in path:
            label.append("  accepted")
        branches[node] = branches[parent].add(label)
    branches[path[-1]].add(Text(f"{text(int(last.bonus_token[request]))}  the target's own", style="bold cyan"))
    return branches[0]
