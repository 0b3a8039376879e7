"""From generation settings to the accepted path: fused sampling, or processors on each node's own prefix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    PrefixConstrainedLogitsProcessor,
    SynthIDTextWatermarkLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import eagle_kernels
from eagle_decoding.output import Output
from eagle_decoding.tree import DraftTree, Proposal
from eagle_decoding.typical import TypicalAcceptance, verify_typically

FUSED = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper)  # in the order of the op
STATEFUL = (SynthIDTextWatermarkLogitsProcessor, PrefixConstrainedLogitsProcessor)  # of transformers' own, or may be
MAX_TOP_K = 2**31 - 1  # that the op takes, and more than any vocabulary has
RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {  # of a request's own parameters
    "temperature": ("finite, 0 (greedy) or above", lambda value: 0 <= value < inf),
    "top_k": ("an integer, 0 (off) or above", lambda value: 0 <= value < inf and value % 1 == 0),
    "top_p": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "min_p": ("from 0 to 1", lambda value: 0 <= value <= 1),
}


@dataclass
class SamplingParams:
    """One entry per request, [batch] tensors as `sample_tokens` takes them."""

    seed: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor

    def filtered(self) -> bool:
        """Whether any request has a top-k, top-p or min-p."""
        return bool(((self.top_k > 0) | (self.top_p < 1) | (self.min_p > 0)).any())

    def row(self, b: int) -> dict[str, Any]:
        return {name: value[b : b + 1] for name, value in vars(self).items()}


class NodeSampler:
    """Chooses the token that the target would emit after each node, and with it the path that is accepted.

    With do_sample, the temperature, top-k, top-p and min-p warpers that end the list are fused into one op for
    all nodes. Any other processor sees what it would see in plain decoding: the tokens that really precede a node. It
    is called along the walk only, once per emitted token; for trees with sampled children on every node, with the
    node's own path.

    Along the walk a processor that may keep state is called once a step with all requests, which then go in step: a
    round accepts as many tokens of each as of the one with the fewest.
    """

    def __init__(
        self,
        processors: LogitsProcessorList,
        generation_config: GenerationConfig,
        seeds: list[int],
        device: torch.device,
        per_request: Mapping[str, Sequence[float] | Tensor] | None = None,
        typical_acceptance: TypicalAcceptance | None = None,
    ):
        self.record = bool(
            generation_config.return_dict_in_generate
            and (generation_config.output_scores or generation_config.output_logits)
        )
        fusing = generation_config.do_sample and not self.record
        by_themselves, fused = split_processors(processors) if fusing else (list(processors), [])
        self.processors = LogitsProcessorList(by_themselves)
        self.in_step = not all(is_stateless(processor) for processor in by_themselves)
        self.params = fused_params(fused, generation_config.do_sample, seeds, device)
        self.typical_acceptance = typical_acceptance
        if per_request and (self.record or any(type(p) in FUSED for p in by_themselves)):
            raise ValueError(
                f"{', '.join(per_request)} differ by request, which goes with no other warper than temperature, top_k, "
                "top_p and min_p and without output_scores and output_logits: leave these out, or pass one value."
            )
        for name, values in (per_request or {}).items():
            copies = generation_config.num_return_sequences or 1
            setattr(self.params, name, one_per_request(name, values, getattr(self.params, name), copies))

    def verify(self, logits: Tensor, tree: DraftTree, output: Output) -> tuple[Tensor, Tensor, Tensor]:
        """Returns accept_index, accept_length and bonus_token as `verify_tree` does.

        logits: [batch, num_nodes, vocab], the target's after each node
        """
        if self.typical_acceptance is not None:
            scores = self.process_nodes(logits, tree, output)
            verdict = verify_typically(self.typical_acceptance, scores, tree, vars(self.params))
        elif tree.proposal is not None:
            scores = self.process_nodes(logits, tree, output)
            verdict = self.reject(scores, tree, tree.proposal)
        else:
            tree.target_tokens = self.choose(logits, tree, output)
            verdict = eagle_kernels.verify_tree(tree.draft_tokens, tree.parent, tree.target_tokens, tree.max_depth)
            return cut_in_step(*verdict, tree.target_tokens) if self.in_step else verdict
        if self.record:
            accept_index = verdict[0].tolist()
            for b in output.active_rows():
                for node in (n for n in accept_index[b] if n >= 0):
                    output.record(b, logits[b : b + 1, node].float(), scores[b : b + 1, node])
        return verdict

    def reject(self, scores: Tensor, tree: DraftTree, proposal: Proposal) -> tuple[Tensor, Tensor, Tensor]:
        """Rejection sampling of a tree with drawn children, by traversal where all of them were drawn."""
        return eagle_kernels.verify_rejection(
            scores,
            proposal.draft_logits,
            tree.draft_tokens,
            tree.parent,
            context_len=tree.position_ids[:, 0].contiguous(),
            **vars(self.params),
            d2t=proposal.d2t,
            num_fixed=proposal.num_fixed,
            max_depth=tree.max_depth,
            traversal=proposal.num_fixed is None,
        )

    def choose(self, logits: Tensor, tree: DraftTree, output: Output) -> Tensor:
        """Returns [batch, num_nodes] int32: the token after each node, -1 for NaN logits or where no walk came by.

        logits: [batch, num_nodes, vocab]
        """
        if not self.processors and not self.record:
            return eagle_kernels.sample_tokens(logits, tree.position_ids + 1, **vars(self.params))
        if self.in_step or (tree.num_nodes == 1 and output.is_level):
            return self.walk_in_step(logits, tree, output)
        target_tokens = torch.full_like(tree.draft_tokens, -1)
        for b in output.active_rows():
            self.walk(b, logits, tree, output, target_tokens)
        return target_tokens

    def walk_in_step(self, logits: Tensor, tree: DraftTree, output: Output) -> Tensor:
        """Follows the paths of all requests, which are equally long, until one of them ends; returns as `choose`.

        Each step is one call of the processors with what transformers' generate would give them: requests that ended,
        before or at an end token on the way, are padded.
        """
        target_tokens = torch.full_like(tree.draft_tokens, -1)
        rows, active = torch.arange(len(logits), device=logits.device), output.active_rows()
        texts, nodes = output.sequences(), torch.zeros_like(rows)
        while True:
            raw = logits[rows, nodes].float()
            scores = self.processors(texts, raw.clone()) if self.processors else raw
            position = tree.position_ids.gather(1, nodes[:, None]) + 1
            tokens = eagle_kernels.sample_tokens(scores[:, None], position, **vars(self.params))
            target_tokens[active, nodes[active]] = tokens[active, 0]
            for b in active if self.record else ():
                output.record(b, raw[b : b + 1], scores[b : b + 1])
            following = torch.full_like(texts[:, :1], output.pad_token)
            following[active] = tokens[active].long()
            active = [b for b in active if int(tokens[b]) not in output.eos]
            followed = (tree.parent == nodes[:, None]) & (tree.draft_tokens == tokens)
            if not active or not bool(followed[active].any(1).all()):
                return target_tokens
            texts = torch.cat([texts, following], dim=1)
            nodes[active] = followed.int().argmax(1)[active]

    def walk(self, b: int, logits: Tensor, tree: DraftTree, output: Output, target_tokens: Tensor) -> None:
        """Follows request b's path from the root, processing each visited node with its true prefix."""
        draft_tokens, parent = tree.draft_tokens[b].tolist(), tree.parent[b].tolist()
        prefix = output.prefix(b)
        node: int | None = 0
        while node is not None:
            raw = logits[b : b + 1, node].float()
            scores = self.process(b, prefix, raw, batch=logits.shape[0])
            position = tree.position_ids[b : b + 1, node : node + 1] + 1
            token = int(eagle_kernels.sample_tokens(scores[:, None], position, **self.params.row(b)))
            target_tokens[b, node] = token
            if self.record:
                output.record(b, raw, scores)
            prefix = torch.cat([prefix, prefix.new_tensor([token])])
            children = range(node + 1, tree.num_nodes) if token not in output.eos else ()
            node = next((n for n in children if parent[n] == node and draft_tokens[n] == token), None)

    def process_nodes(self, logits: Tensor, tree: DraftTree, output: Output) -> Tensor:
        """Runs the processors on every node of the tree, each with the tokens of its own path as prefix."""
        if not self.processors:
            return logits.float() if self.record else logits
        scores = logits.to(torch.float32, copy=True)
        for b in output.active_rows():
            draft_tokens, parent = tree.draft_tokens[b].tolist(), tree.parent[b].tolist()
            prefixes = {0: output.prefix(b)}
            for node in range(tree.num_nodes):
                if node > 0 and parent[node] in prefixes:
                    prefix = prefixes[parent[node]]
                    prefixes[node] = torch.cat([prefix, prefix.new_tensor(draft_tokens[node : node + 1])])
                if node in prefixes:
                    scores[b, node] = self.process(b, prefixes[node], scores[b : b + 1, node], batch=logits.shape[0])[0]
        return scores

    def process(self, b: int, prefix: Tensor, scores: Tensor, batch: int) -> Tensor:
        """Runs the processors on one request, in its own place of the batch: some processors look at the place."""
        if not self.processors:
            return scores
        return self.processors(prefix.expand(batch, -1), scores.repeat(batch, 1))[b : b + 1]


def cut_in_step(
    accept_index: Tensor, accept_length: Tensor, bonus_token: Tensor, target_tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What `verify_tree` returned for paths followed in step, without the drafts that no step came by."""
    steps = max(1, int((target_tokens >= 0).sum(1).max()))
    accept_length = accept_length.clamp(max=steps - 1)
    last = accept_length.long()[:, None]
    depth = torch.arange(accept_index.shape[1], device=last.device)
    bonus_token = target_tokens.gather(1, accept_index.gather(1, last).long()).squeeze(1)
    return accept_index.where(depth <= last, -1), accept_length, bonus_token


def is_stateless(processor: Any) -> bool:
    """Whether it is one of transformers' own processors that keep nothing from call to call."""
    return type(processor).__module__ == LogitsProcessor.__module__ and type(processor) not in STATEFUL


def one_per_request(name: str, values: Sequence[float] | Tensor, like: Tensor, copies: int) -> Tensor:
    """A parameter's values, one for each request or for each of its copies in the batch, as `sample_tokens` takes them.

    Raises ValueError for values that are no numbers, too many or too few, or out of range.
    """
    try:
        given = torch.as_tensor(values, dtype=torch.float64, device=like.device)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be one number or one per request, got {values!r}.") from None
    if given.shape == (len(like) // copies,):
        given = given.repeat_interleave(copies)
    if given.shape != like.shape:
        raise ValueError(
            f"{name} must be one number or one per request: got {given.numel()} for a batch of {len(like)}."
        )
    words, fits = RANGES[name]
    for request, value in enumerate(given.tolist()):
        if not fits(value):
            raise ValueError(f"{name} must be {words}, got {value} for request {request // copies}.")
    return (given.clamp(max=MAX_TOP_K) if name == "top_k" else given).to(like.dtype)


def split_processors(processors: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Processors that run by themselves, and the warpers at the end that do together what one `sample_tokens` does.

    These come in the op's order, each at most once, and remove what they remove for good, down to a single token.
    """
    split, following = len(processors), len(FUSED)
    while split and is_plain(processors[split - 1]) and FUSED.index(type(processors[split - 1])) < following:
        split -= 1
        following = FUSED.index(type(processors[split]))
    return list(processors[:split]), list(processors[split:])


def is_plain(processor: Any) -> bool:
    """Whether it is one of the fused warpers with transformers' defaults besides its parameter."""
    return (
        type(processor) in FUSED
        and getattr(processor, "filter_value", -inf) == -inf
        and getattr(processor, "min_tokens_to_keep", 1) == 1
    )


def fused_params(warpers: list[Any], do_sample: bool, seeds: list[int], device: torch.device) -> SamplingParams:
    """Reads temperature, top-k, top-p and min-p off transformers' warpers; greedy is temperature 0."""
    values = {"temperature": 1.0 if do_sample else 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    for warper in warpers:
        for name in values:
            if hasattr(warper, name):
                values[name] = getattr(warper, name)
    batch = len(seeds)
    return SamplingParams(
        seed=torch.tensor(seeds, dtype=torch.int64, device=device),
        temperature=torch.full((batch,), values["temperature"], dtype=torch.float32, device=device),
        top_k=torch.full((batch,), min(values["top_k"], MAX_TOP_K), dtype=torch.int32, device=device),
        top_p=torch.full((batch,), values["top_p"], dtype=torch.float32, device=device),
        min_p=torch.full((batch,), values["min_p"], dtype=torch.float32, device=device),
    )
