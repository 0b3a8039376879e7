"""SpeculativeDecoder: a target, a draft and transformers' generate around them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation import GenerationMode, UnbatchedClassifierFreeGuidanceLogitsProcessor

from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import Draft, NoDraft, load_draft, read_spelling
from eagle_decoding.graph import capture_for
from eagle_decoding.inputs import check_lengths, check_mask, check_prompt, check_tokens, sequence_seeds, strip_padding
from eagle_decoding.loop import decode
from eagle_decoding.memory import Memory, kind_of
from eagle_decoding.output import Output
from eagle_decoding.sampling import NodeSampler
from eagle_decoding.stats import Stats
from eagle_decoding.target import TURN, Target, check_loaded, check_target, load_target
from eagle_decoding.typical import TypicalAcceptance

AT_WORK: list[Draft] = []  # the draft of the call that has its turn, and of those that its callbacks made
OTHER_MODES = (  # settings that ask transformers for anything else than greedy search or sampling
    "num_beams",
    "penalty_alpha",
    "dola_layers",
    "constraints",
    "force_words_ids",
    "prompt_lookup_num_tokens",
    "assistant_early_exit",
    "use_mtp",
)
PER_REQUEST = ("temperature", "top_k", "top_p", "min_p")


class SpeculativeDecoder:
    """Decodes with an unmodified transformers model, several tokens a round, with the model's own output.

    target: a causal language model of transformers
    draft:  a drafting method
    fused:  run the target's norms, rope, gated MLPs, linear layers, experts and whole decoder layers on this package's
            kernels while decoding (True), none of them (False), or all, but the last three on a CPU only (None): there
            they make tree and plain decoding agree bit for bit. Whole layers have the weights that one op reads moved
            side by side, once; parameters and values stay the same
    graph:  on a GPU, replay rounds as one CUDA graph where they can be captured; a later call of the same kind (batch,
            sampling or not, draft) replays what an earlier one captured. False launches every kernel by itself

    `stats` describes the last call: rounds, tokens, tokens_per_round, accepted_by_depth, seconds.
    """

    def __init__(self, target: PreTrainedModel, draft: Draft, *, fused: bool | None = None, graph: bool = True):
        check_loaded(target)
        check_target(target)
        if not hasattr(draft, "propose"):
            raise ValueError(
                f"draft must be a loaded draft, got {draft!r}: SpeculativeDecoder.from_pretrained takes one by name."
            )
        self.target = target
        self.draft = draft
        self.graph = graph
        self.fused = fused
        self.stats = Stats()
        self.plain = NoDraft()
        self.memories: dict[bool, Memory] = {}  # of the last captured call that speculated, and of the last plain one

    @classmethod
    def from_pretrained(
        cls,
        target: str | Path | PreTrainedModel,
        draft: str | Path,
        *,
        tree: TreeConfig | None = None,
        draft_dtype: torch.dtype | None = None,
        fused: bool | None = None,
        graph: bool = True,
        **kwargs: Any,
    ) -> "SpeculativeDecoder":
        """Loads a target and a way of drafting for it.

        target: directory, hub id, .gguf file, or a model that is already loaded
        draft:  directory or hub id of a draft head or a small causal language model; "prompt-lookup", "suffix" or
                "lookahead", which need no weights; "suffix+SOURCE" or "prompt-lookup+SOURCE" for both in one tree;
                "static:SOURCE" for EAGLE-1's static tree; "auto:DRAFT" for drafting only where it pays
        tree:   shape of the draft trees; None takes the method's own
        draft_dtype: torch.float8_e4m3fn serves the matrices of an EAGLE head in fp8: half of bfloat16's bytes, a little
                less acceptance, the same text; None serves them in the target's dtype
        fused, graph: as in the class
        kwargs: for the target's from_pretrained, for example dtype=torch.bfloat16

        Raises ValueError when the head does not fit the target, naming what differs, and, before anything is loaded,
        for a draft that is neither here nor on the hub.
        """
        spelling = read_spelling(draft)
        model = load_target(target, **kwargs)
        return cls(model, load_draft(spelling, model, tree, draft_dtype), fused=fused, graph=graph)

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        seed: int | Sequence[int] | Tensor | None = None,
        speculate: bool = True,
        typical_acceptance: TypicalAcceptance | None = None,
        streamer: Any | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generates as transformers' generate does, with its arguments, by name from the third on, and return types.

        What return_dict_in_generate returns has no past_key_values: the decoder's caches are its own.

        inputs:    [batch, tokens] int64, also as input_ids=; left padding goes with attention_mask=
        seed:      makes sampling reproducible; sequence b of those returned draws with seed + b. With a seed for each
                   request, sequence c of request b's num_return_sequences draws with seed[b] + c; there may also be one
                   for each sequence
        speculate: False decodes plainly with the same kernels: same seed, same text, one token a round
        typical_acceptance: LOSSY, Medusa's rule instead of an exact one; None, the default, is lossless
        streamer:  receives tokens as they become final; called token_streamer under custom_generate=decoder

        temperature, top_k, top_p and min_p may be sequences, one value a request, for all its num_return_sequences;
        these requests sample, and those with temperature 0 decode greedily.

        Stopping criteria see one request at a time, [1, tokens] as plain decoding would hold it after each of its
        tokens, and stop this request: one that looks at the whole batch stops each by itself. Logits processors see
        what plain decoding shows them.

        Raises ValueError for what are no token ids of the target, a prompt that does not fit the context, and modes of
        generate that are not supported.
        """
        prompt = inputs if inputs is not None else kwargs.get("input_ids")
        if prompt is not None:
            check_prompt(prompt)
        for name in ("assistant_model", "custom_generate"):
            if kwargs.get(name) is not None:
                raise ValueError(f"{name} is another way of decoding than this decoder's own: leave it out.")
        if not isinstance(generation_config, GenerationConfig | None):
            raise ValueError(
                f"generation_config must be a GenerationConfig, got a {type(generation_config).__name__}: pass other "
                "arguments by name."
            )
        self.move_stop_strings(generation_config, kwargs)
        several = [name for name in PER_REQUEST if isinstance(kwargs.get(name), Sequence | Tensor)]
        per_request = {name: kwargs.pop(name) for name in several if not isinstance(kwargs[name], str)}
        if per_request and not kwargs.setdefault("do_sample", True):
            raise ValueError(f"do_sample=False decodes every request greedily: leave out {', '.join(per_request)}.")
        return self.target.generate(
            inputs,
            generation_config,
            custom_generate=self,
            seed=seed,
            speculate=speculate,
            per_request=per_request,
            typical_acceptance=typical_acceptance,
            token_streamer=streamer,
            **kwargs,
        )

    def move_stop_strings(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> None:
        """Turns stop strings, wherever generate's arguments have them, into a stopping criterion among kwargs.

        transformers keeps the tokenizer from a decoding method of the caller's own, and so would find none for them.
        """
        tokenizer, given = kwargs.pop("tokenizer", None), kwargs.pop("stop_strings", None)
        configs = [generation_config, self.target.generation_config]
        found = [given, *(config.stop_strings for config in configs if config is not None)]
        stop_strings = next((strings for strings in found if strings is not None), None)
        if stop_strings is None:
            return
        if tokenizer is None:
            raise ValueError(f"stop_strings {stop_strings!r} need the tokenizer: pass tokenizer= along with them.")
        criteria = kwargs.pop("stopping_criteria", None) or []
        kwargs["stopping_criteria"] = StoppingCriteriaList([*criteria, StopStringCriteria(tokenizer, stop_strings)])
        kwargs["stop_strings"] = None

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        seed: int | Sequence[int] | Tensor | None = None,
        speculate: bool = True,
        per_request: dict[str, Any] | None = None,
        typical_acceptance: TypicalAcceptance | None = None,
        token_streamer: Any | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """The decoding method that transformers' generate calls for `custom_generate=decoder`.

        token_streamer: what `decoder.generate` calls streamer. One given to transformers' generate as `streamer=` gets
                        the prompt there and then nothing, not even an end: it prints no text, or waits for it in vain.
                        It cannot be refused, for transformers passes it on to no decoding method of the caller's own

        Stop strings come as a StopStringCriteria among the stopping criteria: transformers keeps the tokenizer, too.

        Calls from several threads take turns. A callback of one call may call another decoder, also one of the same
        target, but needs a draft of its own for that.
        """
        if not isinstance(typical_acceptance, TypicalAcceptance | None):
            raise ValueError(f"typical_acceptance takes a TypicalAcceptance(), got {typical_acceptance!r}.")
        if model is not self.target:
            raise ValueError("This decoder was made for another target: call generate on decoder.target.")
        refuse_unsupported(logits_processor, generation_config, model_kwargs)
        draft = self.draft if speculate else self.plain
        check_draft(draft, model)
        target = Target(model, draft.feature_layers, self.fused)
        attention_mask = model_kwargs.get("attention_mask")
        check_mask(input_ids, attention_mask, model_kwargs.get("position_ids"))
        prompt, lengths = strip_padding(input_ids, attention_mask)
        check_lengths(lengths, model.config.max_position_embeddings)
        check_tokens(prompt, len(model.get_input_embeddings().weight))
        copies, sampling = generation_config.num_return_sequences or 1, generation_config.do_sample
        seeds = sequence_seeds(seed, len(input_ids), copies, sampling)
        sampler = NodeSampler(
            logits_processor, generation_config, seeds, input_ids.device, per_request, typical_acceptance
        )
        output = Output(input_ids, stopping_criteria, generation_config, token_streamer)
        with TURN, at_work(draft):
            self.stats = Stats()
            memory = self.memory_for(speculate, target, draft, sampler)
            with target.attached():
                try:
                    decode(target, draft, sampler, output, prompt, lengths, self.stats, memory)
                finally:
                    self.stats.tokens = output.num_tokens
            if memory is not None:
                self.memories[speculate] = memory
        return output.result()

    def memory_for(self, speculate: bool, target: Target, draft: Draft, sampler: NodeSampler) -> Memory | None:
        """What the call's captured rounds work on: the last call's where it was of the same kind. None: no graph.

        A call that fails leaves nothing behind.
        """
        memory = self.memories.pop(speculate, None)
        capture = capture_for(target.model, draft, sampler) if self.graph else None
        if capture is None:
            return None
        target.arrange()
        kind = kind_of(target.model, draft, sampler, target.fused)
        if memory is None or not memory.serves(kind):
            return Memory(kind, capture, sampler.params, target.new_cache(kind.batch))
        memory.adopt(sampler)
        return memory


@contextmanager
def at_work(draft: Draft) -> Iterator[None]:
    """Holds a draft for one call; the caller has its turn.

    Raises ValueError where the draft is at work already, for it keeps the state of one call: a callback wants it too.
    """
    if any(draft is other for other in AT_WORK):
        raise ValueError(
            "generate was called from a streamer, criterion or processor of a call that is still at work with the same "
            "draft: wait until that returns, or call another SpeculativeDecoder that has a draft of its own."
        )
    AT_WORK.append(draft)
    try:
        yield
    finally:
        AT_WORK.pop()


def check_draft(draft: Draft, model: PreTrainedModel) -> None:
    """Raises ValueError where the target was converted or moved after its draft was loaded."""
    dtype, device = getattr(draft, "dtype", model.dtype), torch.device(getattr(draft, "device", model.device))
    if dtype != model.dtype or device.type != model.device.type:
        raise ValueError(
            f"The draft was loaded for a target in {dtype} on {device}, and the target is in {model.dtype} on "
            f"{model.device} now: load the draft again."
        )


def refuse_unsupported(processors: LogitsProcessorList, config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    """Raises ValueError, in one sentence, for what generate can be asked for and this decoder cannot do."""
    mode = config.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        asked = [name for name in OTHER_MODES if getattr(config, name, None) not in (None, False, 1)]
        raise ValueError(
            f"{' and '.join(asked)} asked for {mode.value.replace('_', ' ')}, and this decoder searches greedily or "
            "samples, in a way of its own: leave that out."
        )
    if any(isinstance(p, UnbatchedClassifierFreeGuidanceLogitsProcessor) for p in processors):
        raise ValueError(
            "guidance_scale runs the target once more for every token, with a cache of its own, which speculative "
            "decoding does not support: leave it out."
        )
    if model_kwargs.get("inputs_embeds") is not None:
        raise ValueError("inputs_embeds are not supported, for drafts read tokens: pass input_ids.")
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length():
        raise ValueError(
            f"past_key_values hold {cache.get_seq_length()} tokens, and this decoder keeps caches of its own: leave "
            "them out, and pass the whole text as input_ids."
        )
    asked = [name for name in ("output_hidden_states", "output_attentions") if getattr(config, name)]
    if asked and config.return_dict_in_generate:
        raise ValueError(f"{' and '.join(asked)} cannot be returned by speculative decoding: leave this out.")
