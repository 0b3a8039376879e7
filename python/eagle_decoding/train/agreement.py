"""Does the engine accept what training promised? tau_sim and tokens per round of a greedy chain on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import Eagle1Config, Head, HeadConfig, read_head
from eagle_decoding.config import TreeConfig
from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.drafts import load_draft
from eagle_decoding.target import output_weight
from eagle_decoding.train.data import TokenRows, read_token_rows, split_rows
from eagle_decoding.train.eagle1_head import Eagle1Head
from eagle_decoding.train.eagle3_head import Eagle3Head
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.folder import begun_with
from eagle_decoding.train.head import LayerHead
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.target import frozen_target, target_features
from eagle_decoding.train.unroll import unroll

TOLERANCE = 0.1


@dataclass(frozen=True)
class Agreement:
    """Greedy chains of `steps` drafts on the same rows.

    tau_sim: the unrolled loop's figure, 1 + sum of survival, averaged over source positions. tau_walk: the same drafts,
    but averaged over the rounds that a decoder would make of them, from the end of one accepted path to the next.
    tokens_per_round: the engine's own. rows, rounds: how many.
    """

    steps: int
    rows: int
    rounds: int
    tau_sim: float
    tau_walk: float
    tokens_per_round: float

    def __str__(self) -> str:
        return (
            f"Greedy chains of {self.steps} on {self.rows} held-out rows: tau_sim {self.tau_sim:.3f} in training, "
            f"{self.tau_walk:.3f} walked round by round, {self.tokens_per_round:.3f} tokens per round of the engine "
            f"({self.rounds} rounds)"
        )

    @property
    def warning(self) -> str | None:
        """What to suspect when the engine is more than 10 % from tau_sim."""
        if abs(self.tokens_per_round / self.tau_sim - 1) <= TOLERANCE:
            return None
        if abs(self.tokens_per_round / self.tau_walk - 1) <= TOLERANCE:
            return (
                f"The engine's {self.tokens_per_round:.3f} tokens per round are more than 10 % from tau_sim "
                f"{self.tau_sim:.3f}, but within 10 % of the same drafts walked round by round ({self.tau_walk:.3f}): "
                "acceptance is uneven along the text, training and serving agree."
            )
        return (
            f"The engine's {self.tokens_per_round:.3f} tokens per round are more than 10 % from tau_sim "
            f"{self.tau_sim:.3f} and from the same drafts walked round by round ({self.tau_walk:.3f}): "
            "layer ids, rope or norms differ between training and serving; try `eagle-decoding probe`."
        )


def compare(
    draft: str | Path, run: str | Path, max_rows: int, report: Callable[[int, int], None] = lambda rows, tokens: None
) -> Agreement:
    """Runs a head over held-out rows that the target decoded greedily, in fp32: unrolled as in training, and decoding.

    draft: head directory. run: the training run's `out` folder, which names target, rows and steps.
    Raises DataError if the run holds out no greedy row.
    """
    config = begun_with(Path(run))
    data = read_token_rows(config.data.tokens)
    _, held_out = split_rows(data, config.data.held_out, config.seed)
    rows = [row for row in held_out if data.greedy[row]][:max_rows]
    if not rows:
        raise DataError(f"The run {run} holds out no row that was decoded greedily; raise data.held_out.")
    target, steps = frozen_target(config.target), config.unroll.steps
    module = head_module(read_head(draft), target)
    chain = TreeConfig(num_nodes=steps + 1, max_depth=steps, topk=1)
    decoder = SpeculativeDecoder(target, load_draft(draft, target, chain))
    figures, walk, rounds, accepted = Acceptance(steps), [0, 0], 0, 0
    for row in rows:
        lengths = accepted_by_position(module, target, data, row, steps, figures)
        ids = data.ids[int(data.starts[row]) : int(data.starts[row + 1])]
        first = int(data.supervised[int(data.starts[row]) :].int().argmax())
        walked = rounds_of(lengths, first)
        walk = [walk[0] + len(walked), walk[1] + sum(walked)]
        decoder.generate(ids[None, :first], max_new_tokens=len(ids) - first, do_sample=False)
        rounds += decoder.stats.rounds
        accepted += decoder.stats.accepted
        report(1, decoder.stats.tokens)
    tau_sim = float(str(figures.summary()["tau_sim"]))
    return Agreement(steps, len(rows), rounds, tau_sim, 1 + walk[1] / max(walk[0], 1), 1 + accepted / max(rounds, 1))


def head_module(head: Head, target: PreTrainedModel) -> LayerHead:
    """A head from a directory as the trainer's module, with the lm_head that the directory holds or the target's."""
    parts = target.get_input_embeddings().weight.detach(), output_weight(target), head.target_ids
    module: Eagle1Head | Eagle3Head
    tensors = {name: t if name == "d2t" else t.float() for name, t in head.tensors.items()}
    if isinstance(head.config, Eagle1Config):
        module = Eagle1Head(head.config, *parts)
    else:
        module = Eagle3Head(head.config, *parts)
        module.lm_head.copy_(tensors.pop("lm_head.weight"))
    module.load_state_dict(tensors)
    return module


@torch.no_grad()
def accepted_by_position(
    head: LayerHead, target: PreTrainedModel, data: TokenRows, row: int, steps: int, figures: Acceptance
) -> Tensor:
    """[T], int64: how many greedy drafts after each source position of a row are the row's own tokens.

    figures: counts the row as training does
    """
    documents = data.pack([row])
    num_layers, config = target.config.get_text_config().num_hidden_layers, head.config
    layer_ids = config.layer_ids(num_layers) if isinstance(config, HeadConfig) and config.num_aux > 1 else ()
    states = target_features(target, documents.input_ids[None], layer_ids)[0]
    total = documents.input_ids.shape[0]
    figures.start(total)
    alive, lengths = torch.ones(total, dtype=torch.bool), torch.zeros(total, dtype=torch.int64)
    for output in unroll(head, documents, states[:, :-1], states[:, -1], steps):
        figures.add(output)
        hits = torch.zeros(total, dtype=torch.bool)
        hits[output.rows] = output.scores.hit
        alive &= hits
        lengths += alive
    return lengths


def rounds_of(lengths: Tensor, first: int) -> list[int]:
    """Accepted drafts of every round of a decoder that writes the row's answer, which begins at token `first`.

    A round that starts from the feature of position t emits tokens t + 2 ... t + 2 + lengths[t]; the next one starts
    from the last accepted of them.
    """
    position, rounds = first - 1, []
    while position + 2 < len(lengths):
        rounds.append(int(lengths[position]))
        position += rounds[-1] + 1
    return rounds
