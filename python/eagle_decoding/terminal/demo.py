"""The demo: one answer decoded speculatively and plainly, side by side, and a look at the last draft tree."""

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.panel import Panel
from torch import Tensor
from transformers import TextStreamer

from eagle_decoding.terminal.console import err, out
from eagle_decoding.terminal.models import Models
from eagle_decoding.terminal.report import Run, acceptance_table, first_difference, phase_table, speed_table
from eagle_decoding.terminal.tree import draw_tree

WARM_UP_TOKENS = 8  # of each way of decoding, so that one-time costs are in nobody's time


def run_demo(models: Models, prompt: str, max_new_tokens: int, method: str) -> None:
    """Answers `prompt` greedily in three ways and prints what they have in common and what not; method: who drafts."""
    decoder, tokenizer = models.decoder, models.tokenizer
    inputs = models.encode([{"role": "user", "content": prompt}])
    prompt_len = inputs["input_ids"].shape[1]

    def timed(name: str, generate: Callable[..., Tensor], **settings: Any) -> Run:
        start = time.perf_counter()
        ids = generate(**inputs, do_sample=False, **{"max_new_tokens": max_new_tokens, **settings})
        seconds = time.perf_counter() - start
        tokens = ids[0, prompt_len:].tolist()
        forwards = len(tokens) if generate == decoder.target.generate else decoder.stats.rounds + 1
        return Run(name, tokens, seconds, forwards)

    with err.status("Warming up"):
        timed("", decoder.generate, max_new_tokens=WARM_UP_TOKENS)
        timed("", decoder.target.generate, max_new_tokens=WARM_UP_TOKENS)
    out.print(Panel(prompt, title="prompt", title_align="left", style="bold", border_style="dim"))
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    speculative = timed(method, decoder.generate, streamer=streamer)
    stats = decoder.stats
    out.print()
    with err.status("The same again, plainly"):
        plain = timed("plain", decoder.generate, speculate=False)
        stock = timed("transformers", decoder.target.generate)
    out.print(speed_table([speculative, plain, stock]))
    for run in (plain, stock):
        describe_difference(models, inputs["input_ids"], speculative, run)
    out.print(acceptance_table(stats))
    out.print(phase_table(stats))
    if stats.last_round is not None:
        scored = stats.last_round.tree.node_scores is not None
        out.print(f"The last draft tree{', with the probability of each token after its parent' if scored else ''}:")
        out.print(draw_tree(stats.last_round, tokenizer))


def describe_difference(models: Models, prompt: Tensor, one: Run, other: Run) -> None:
    """Shows the first token that two runs disagree on, and how far apart the target holds its best two tokens there."""
    where = first_difference(one.tokens, other.tokens)
    if where is None:
        return
    common = torch.cat([prompt, prompt.new_tensor([one.tokens[:where]])], dim=1)
    with torch.inference_mode():
        best = models.decoder.target(common).logits[0, -1].float().topk(2).values.tolist()
    texts = [repr(models.tokenizer.decode(run.tokens[where : where + 6])) for run in (one, other)]
    out.print(
        f"Token {where + 1}: {one.name} goes on with {texts[0]}, {other.name} with {texts[1]}. The target's two best "
        f"logits there are {best[0]:.4f} and {best[1]:.4f}.",
        style="yellow",
        markup=False,
    )
