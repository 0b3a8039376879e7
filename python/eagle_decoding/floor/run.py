"""Measures a short decode beside the machine's ceilings and prints how far from the floor its rounds are."""

from typing import Any

from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.drafts import Eagle3Draft
from eagle_decoding.floor.ceilings import measure_ceilings
from eagle_decoding.floor.report import MeasuredRound, ceilings_line, phase_table, speed_table, verdict
from eagle_decoding.floor.speed import Floor
from eagle_decoding.floor.work import round_model
from eagle_decoding.stats import ONCE
from eagle_decoding.terminal.console import err, out
from eagle_decoding.terminal.models import Models

WARM_UP_TOKENS = 8


def run_floor(models: Models, prompt: str, max_new_tokens: int) -> None:
    """Prints the ceilings, the phases, the possible speed-ups, and where the measured round stands.

    Raises ValueError for a drafting method other than an EAGLE-3 head: its bytes are not counted.
    """
    decoder = models.decoder
    draft = decoder.draft
    if not isinstance(draft, Eagle3Draft):
        raise ValueError(
            f"The floor is counted for EAGLE-3 heads, not for {type(draft).__name__}: give such a --draft."
        )
    inputs = models.encode_prompt(prompt, None)
    device = decoder.target.device.type
    with err.status("Measuring the machine's ceilings"):
        ceilings = measure_ceilings(decoder.target.dtype, device)
    with err.status("Decoding"):
        measured = measure_round(decoder, inputs, max_new_tokens)
    context = inputs["input_ids"].shape[1] + decoder.stats.tokens / 2
    floor = Floor(round_model(decoder.target, draft), ceilings, draft.tree, context)
    out.print(ceilings_line(ceilings, device))
    out.print(phase_table(floor, measured))
    out.print(speed_table(floor, measured))
    out.print(verdict(floor, measured))


def measure_round(decoder: SpeculativeDecoder, inputs: dict[str, Any], max_new_tokens: int) -> MeasuredRound:
    """Decodes greedily without and with drafting, after a few tokens of each to warm up.

    Raises ValueError when the text ended before a single round.
    """
    seconds = {}
    for tokens in (WARM_UP_TOKENS, max_new_tokens):
        for speculate in (False, True):
            decoder.generate(**inputs, do_sample=False, max_new_tokens=tokens, speculate=speculate)
            seconds[speculate] = decoder.stats.decode_seconds / max(1, decoder.stats.rounds)
    stats = decoder.stats
    if not stats.rounds:
        raise ValueError("The model ended its answer at the first token: ask for something longer.")
    return MeasuredRound(
        tokens_per_round=stats.tokens_per_round,
        phases={phase: seconds / stats.rounds for phase, seconds in stats.seconds.items() if phase not in ONCE},
        plain_seconds=seconds[False],
    )
