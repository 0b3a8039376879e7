"""verify_rejection: a tree of sampled children is tested against its target, against the same rule on torch's laws."""

import torch
from torch import Tensor

import eagle_kernels
from bench.case import Case, op_benchmark
from bench.sampling_cases import language_model_logits, request_settings
from eagle_decoding.numerics.cases import Maker, Sizes

CHILDREN = 3


def case(s: Sizes, make: Maker, settings: str = "temperature") -> Case:
    nodes = torch.arange(s.num_nodes, dtype=torch.int32)
    parent = nodes.sub(1).div(CHILDREN, rounding_mode="floor")
    parents = make.tensor(parent.repeat(s.batch, 1))
    target_logits = language_model_logits(make, s.batch, s.num_nodes, s.vocab_size)
    draft_logits = target_logits + 0.5 * torch.randn_like(target_logits)
    node_ids, context_len = make.tensor(nodes.repeat(s.batch, 1)), make.tensor([s.context_len] * s.batch)
    requests = request_settings(make, s.batch, settings)
    num_children = torch.full_like(node_ids, CHILDREN)
    children, _ = eagle_kernels.sample_children(draft_logits, node_ids, num_children, context_len, *requests, CHILDREN)
    draft_tokens = torch.zeros_like(node_ids)
    draft_tokens[:, 1:] = children.flatten(1)[:, : s.num_nodes - 1]
    arguments = (target_logits, draft_logits, draft_tokens, parents, context_len, *requests)
    num_bytes = 4 * s.batch * target_logits[0, 0].nbytes  # both laws at the root and at one accepted node
    return Case(arguments, num_bytes, 6 * s.batch * s.vocab_size, in_torch)


def in_torch(
    target_logits: Tensor,
    draft_logits: Tensor,
    draft_tokens: Tensor,
    parent: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    *filters: Tensor,
) -> list[list[int]]:
    warmth = temperature[:, None, None]
    target, draft = (target_logits.float() / warmth).softmax(-1), (draft_logits.float() / warmth).softmax(-1)
    coins = torch.rand(draft_tokens.shape, device=target.device)
    texts = []
    for b in range(len(target)):
        tokens, above, text, here = draft_tokens[b].tolist(), parent[b].tolist(), [], 0
        while True:
            law, proposal, accepted = target[b, here], draft[b, here], None
            for child in (node for node in range(here + 1, len(above)) if above[node] == here):
                token = tokens[child]
                if coins[b, child] * proposal[token] < law[token]:
                    accepted = child
                    break
                law = (law - proposal).clamp(min=0)
                law = law / law.sum()
                proposal = proposal.index_fill(0, torch.tensor(token, device=law.device), 0)
                proposal = proposal / proposal.sum()
            if accepted is None:
                texts.append([*text, int(law.multinomial(1))])
                break
            here = accepted
            text.append(tokens[here])
    return texts


bench_verify_rejection = op_benchmark("verify_rejection", case, ("batch", "num_nodes"))
