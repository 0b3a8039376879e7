"""verify_tree in plain torch."""

import torch
from torch import Tensor


def verify_tree(
    draft_tokens: Tensor, parent: Tensor, target_tokens: Tensor, max_depth: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_nodes = draft_tokens.shape
    accept_index = torch.full((batch, max_depth + 1), -1, dtype=torch.int32)
    accept_length = torch.zeros(batch, dtype=torch.int32)
    bonus_token = torch.zeros(batch, dtype=torch.int32)
    for b in range(batch):
        tokens, parents, target = (t[b].tolist() for t in (draft_tokens, parent, target_tokens))
        path = [0]
        while len(path) <= max_depth and target[path[-1]] >= 0:
            here = path[-1]
            matches = (n for n in range(here + 1, num_nodes) if parents[n] == here and tokens[n] == target[here])
            child = next(matches, None)
            if child is None:
                break
            path.append(child)
        accept_index[b, : len(path)] = torch.tensor(path)
        accept_length[b] = len(path) - 1
        bonus_token[b] = target[path[-1]]
    device = draft_tokens.device
    return accept_index.to(device), accept_length.to(device), bonus_token.to(device)
