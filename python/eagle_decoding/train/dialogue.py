"""Conversations whose assistant turns the target writes: what it is asked next, and the token row that results."""

from __future__ import annotations

from dataclasses import dataclass, field

from eagle_decoding.slots import Request
from eagle_decoding.train.prompts import ChatFormat, Message

QUESTION_TEMPERATURE = 1.0


@dataclass
class Dialogue:
    """One conversation at work.

    key: its place among the prompts. temperature, seed: how its answers are sampled. waiting: messages to come.
    asks: the target has yet to write the user's message itself. messages: what was said.
    ids, supervised: the same as tokens, and which of them are answers; empty until something was answered.
    """

    key: int
    temperature: float
    seed: int
    waiting: list[Message]
    asks: bool = False
    messages: list[Message] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)


class Dialogues:
    """Turns conversations into requests, and finished requests into rows or further requests.

    Every user turn is answered in order, given the target's own earlier answers; a conversation stops early at an
    answer that did not end by itself and where the next answer might exceed `max_length` tokens.
    """

    def __init__(
        self, chat: ChatFormat, dialogues: list[Dialogue], eos: frozenset[int], max_new_tokens: int, max_length: int
    ):
        self.chat, self.eos, self.max_new_tokens, self.max_length = chat, eos, max_new_tokens, max_length
        self.by_key = {dialogue.key: dialogue for dialogue in dialogues}

    def requests(self) -> list[Request]:
        """The first request of every conversation that has room for an answer, longest prompt first."""
        openings = [self.open(dialogue) for dialogue in self.by_key.values()]
        return sorted((r for r in openings if r is not None), key=lambda r: len(r.prompt), reverse=True)

    def open(self, dialogue: Dialogue) -> Request | None:
        if dialogue.asks:
            return Request(dialogue.key, self.chat.question_opening(), QUESTION_TEMPERATURE, dialogue.seed)
        while not dialogue.messages or dialogue.messages[-1]["role"] != "user":
            dialogue.messages.append(dialogue.waiting.pop(0))
        return self.request(dialogue, self.chat.opening(dialogue.messages))

    def request(self, dialogue: Dialogue, prompt: list[int]) -> Request | None:
        if len(prompt) + self.max_new_tokens > self.max_length:
            return None
        return Request(dialogue.key, prompt, dialogue.temperature, dialogue.seed)

    def finished(self, request: Request, tokens: list[int]) -> Request | None:
        """Takes in what was written for a request and returns what to write next."""
        dialogue, ended = self.by_key[request.key], tokens[-1] in self.eos
        text = self.chat.text(tokens)
        if dialogue.asks:
            if not ended or not text.strip():
                return None
            dialogue.asks, dialogue.waiting = False, [{"role": "user", "content": text.strip()}]
            return self.open(dialogue)
        dialogue.supervised += [False] * (len(request.prompt) - len(dialogue.ids)) + [True] * len(tokens)
        dialogue.ids = request.prompt + tokens
        if not dialogue.waiting or not ended:
            return None
        dialogue.messages += [{"role": "assistant", "content": text}, dialogue.waiting.pop(0)]
        following = self.chat.following(dialogue.messages, tokens[-1])
        return None if following is None else self.request(dialogue, dialogue.ids + following)
