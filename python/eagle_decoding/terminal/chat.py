"""A conversation in the terminal: the history is kept, Ctrl-C stops an answer, /exit ends."""

import time
from typing import Any

from transformers import TextStreamer

from eagle_decoding.terminal.console import notice, out
from eagle_decoding.terminal.models import Models
from eagle_decoding.terminal.report import summary

HELP = "Ctrl-C stops an answer, /exit or /quit ends the conversation, /help says this again."


class HeardStreamer(TextStreamer):
    """Prints an answer as it comes and remembers what was printed, for the case that it is interrupted."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.heard = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.heard += text
        super().on_finalized_text(text, stream_end)


def run_chat(models: Models, settings: dict[str, Any]) -> None:
    """Reads questions until /exit, /quit or the end of the input.

    settings: arguments of generate
    Raises ValueError, before the first question, for a target without a chat template.
    """
    if models.tokenizer.chat_template is None:
        raise ValueError("chat needs a tokenizer with a chat template, and this target's has none: use generate.")
    notice(HELP)
    history: list[dict[str, str]] = []
    while True:
        try:
            question = out.input("[bold]> [/]").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return
        if question in ("/exit", "/quit"):
            return
        if question == "/help":
            notice(HELP)
        elif question and make_room(models, history, question, settings["max_new_tokens"]):
            history.append({"role": "user", "content": question})
            history.append({"role": "assistant", "content": answer(models, history, settings)})


def make_room(models: Models, history: list[dict[str, str]], question: str, max_new_tokens: int) -> bool:
    """Forgets as many of the oldest turns as the next question and its answer need; False, with a word, for a question
    that does not fit by itself."""
    context, asked = models.decoder.target.config.max_position_embeddings, {"role": "user", "content": question}
    for forgotten in range(0, len(history) + 1, 2):
        length = models.encode([*history[forgotten:], asked])["input_ids"].shape[1]
        if length + max_new_tokens > context:
            continue
        if forgotten:
            notice(f"The conversation has become too long: oldest turns forgotten: {forgotten // 2}.")
        del history[:forgotten]
        return True
    notice(f"The question has {length} tokens, which with {max_new_tokens} of an answer are more than {context}.")
    return False


def answer(models: Models, history: list[dict[str, str]], settings: dict[str, Any]) -> str:
    """Streams the answer to a conversation and returns it, cut short where Ctrl-C came."""
    streamer = HeardStreamer(models.tokenizer)
    start = time.perf_counter()
    try:
        models.decoder.generate(**models.encode(history), streamer=streamer, **settings)
    except KeyboardInterrupt:
        out.print()
        notice("Stopped.")
    else:
        notice(summary(models.decoder.stats, time.perf_counter() - start))
    return streamer.heard
