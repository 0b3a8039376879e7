"""The target: a stock transformers model that runs prompts and trees, with its inner features on the side."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, get_ident
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from eagle_decoding import attention
from eagle_decoding.cache import TreeCache, head_dim
from eagle_decoding.fused_layer import layer_forward
from eagle_decoding.modules import fused_modules
from eagle_decoding.tree import DraftTree

SUPPORTED = (
    "gemma3_text",
    "glm4",
    "gpt_oss",
    "granite",
    "llama",
    "mistral",
    "mixtral",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
RESCALED = {"dynamic", "longrope"}  # rotary embeddings of which a row depends on the largest position in the forward
MAX_HEAD_DIM, MIN_WINDOW = 256, 128  # of tree_attention
TURN = RLock()  # held while a decoder is at work: what it replaces in models and modules is there for all threads


def existing_target(path: str | Path) -> str:
    """Passes a path that exists and a hub id, which has one slash at most and no file extension of ours.

    Raises ValueError for a path that does not exist.
    """
    written, expanded = str(path), Path(path).expanduser()
    looks_local = written.startswith((".", "/", "~")) or written.count("/") > 1 or written.endswith(".gguf")
    if looks_local and not expanded.exists():
        raise ValueError(
            f"{written} does not exist: give a directory, a .gguf file or a hub id like organisation/model."
        )
    return str(expanded) if expanded.exists() else written


def load_target(path: str | Path | PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
    """Loads a causal language model from a directory, a hub id or a .gguf file (dequantised); a model passes through.

    kwargs: arguments of from_pretrained, for example dtype=torch.bfloat16.

    Raises ValueError for such arguments along with a model, for what is no path and no model, for a path that does not
    exist, and for a directory whose weights cannot be read or are not all of the model that its config.json describes;
    OSError for an unknown hub id.
    """
    if not isinstance(path, str | Path):
        check_loaded(path)
        if kwargs:
            raise ValueError(f"{', '.join(kwargs)} say how to load a model and this one is loaded: leave them out.")
        return path
    source = existing_target(path)
    if source.endswith(".gguf"):
        from transformers import GgufConfig

        folder, name = str(Path(source).parent), Path(source).name
        kwargs = {"quantization_config": GgufConfig(dequantize=True), **kwargs}
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, **kwargs).eval()
    return load_whole(source, **kwargs).eval()


def load_whole(source: str, **kwargs: Any) -> PreTrainedModel:
    """A model from a directory or the hub, where transformers would make up the weights that are not there."""
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    except SafetensorError as error:
        raise ValueError(f"{source} has weights that cannot be read ({error}): fetch them again.") from error
    except OSError as error:
        if Path(source).exists():
            raise
        reason = str(error).strip().partition("\n")[0]
        raise OSError(f"There is no {source} here, and it did not come from the hub: {reason}") from error
    lacking = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
    if lacking:
        raise ValueError(
            f"{source} lacks {len(lacking)} weights of the {type(model).__name__} in its config.json, one of them "
            f"{min(lacking)}: give a whole model; a draft head goes with the target it was trained for."
        )
    return model


def check_loaded(model: Any) -> None:
    """Raises ValueError for anything but a transformers model that has its weights."""
    check_model(model, "Target")
    if model.device.type == "meta":
        raise ValueError("Target is on the meta device, where weights hold no numbers: load it onto a CPU or a GPU.")


def check_model(model: Any, role: str) -> None:
    """Raises ValueError for anything but a transformers model; what wraps one may change what it says."""
    if isinstance(model, PreTrainedModel):
        return
    advice = "load one from a path with SpeculativeDecoder.from_pretrained, or unwrap it"
    if hasattr(model, "_orig_mod"):
        advice = "give the model that torch.compile was given"
    elif hasattr(model, "peft_config"):
        advice = "give what its merge_and_unload() returns; what cannot be merged, as a tuned prompt, is not supported"
    raise ValueError(f"{role} must be a loaded transformers model, got a {type(model).__name__}: {advice}.")


def check_target(model: PreTrainedModel, role: str = "Target") -> None:
    """Raises ValueError when the model is of a kind that tree decoding was not made for; role: what it is used as."""
    check_model(model, role)
    config = model.config
    if config.model_type not in SUPPORTED:
        raise ValueError(
            f"{role} model type {config.model_type!r} is not supported, use one of {', '.join(SUPPORTED)}."
        )
    if not model.can_generate():
        raise ValueError(
            f"{role} {type(model).__name__} has no output projection onto the vocabulary: load it with "
            "AutoModelForCausalLM."
        )
    if model.dtype not in DTYPES:
        raise ValueError(f"{role} has {model.dtype} weights: load it in one of {', '.join(map(str, DTYPES))}.")
    if head_dim(config) > MAX_HEAD_DIM:
        raise ValueError(
            f"{role} {config.model_type!r} has heads of {head_dim(config)} numbers, and tree attention takes up to "
            f"{MAX_HEAD_DIM}: use a model with smaller heads."
        )
    if getattr(config, "use_bidirectional_attention", False):
        raise ValueError(
            f"{role} {config.model_type!r} attends in both directions and cannot decode: use a causal model."
        )
    window = min(windows(config), default=MIN_WINDOW)
    if window < MIN_WINDOW:
        raise ValueError(
            f"{role} {config.model_type!r} has a sliding window of {window} tokens, and tree attention takes windows "
            f"from {MIN_WINDOW} on, which hold any tree: use a model with a longer one."
        )
    rescaled = rope_types(config) & RESCALED
    if rescaled:
        raise ValueError(
            f"{role} {config.model_type!r} has {min(rescaled)} rotary embeddings, which rescale every row by the "
            "largest position of a forward, so that drafts ahead would change the text: use a model with a fixed "
            "scaling."
        )


def windows(config: Any) -> list[int]:
    """The sliding windows of the layers that have one."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [] if window is None else [window for kind in types if kind == "sliding_attention"]


def rope_types(config: Any) -> set[str]:
    """The kinds of rotary embedding that a model has: one, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer = [part for part in parameters.values() if isinstance(part, dict)]
    return {part["rope_type"] for part in by_layer or [parameters] if "rope_type" in part}


def output_weight(model: PreTrainedModel) -> Tensor:
    """What turns states after the final norm into logits, [vocab, hidden]: Granite divides them by a constant."""
    weight: Tensor = model.get_output_embeddings().weight.detach()
    scaling = getattr(model.config.get_text_config(), "logits_scaling", 1.0)
    return weight if scaling == 1.0 else weight / scaling


@dataclass
class TargetOutput:
    """What a forward of the target yields.

    logits:   [batch, rows, vocab]; after a prompt one row, the last token's
    features: [batch, rows, sum of feature widths], the captured residual streams side by side
    """

    logits: Tensor
    features: Tensor


class Target:
    """Runs a transformers model for the loop; use inside `with target.attached():`.

    feature_layers: boundaries to capture: i is the residual stream that enters layer i, num_layers the one that leaves
                    the last layer, before the final norm, num_layers + 1 the same after it; a negative one counts
                    layers from the end
    fused:          run norms, rope, gated MLPs, linear layers, experts and whole decoder layers on this package's
                    kernels (True), none of them (False), or all, but the last three on a CPU only (None)
    role:           what an error calls the model
    """

    def __init__(
        self,
        model: PreTrainedModel,
        feature_layers: tuple[int, ...] = (),
        fused: bool | None = None,
        role: str = "Target",
    ):
        check_target(model, role)
        self.model = model
        self.decoder = model.get_decoder()
        layers = len(self.decoder.layers)
        self.feature_layers = tuple(b + layers if b < 0 else b for b in feature_layers)
        self.fused = fused
        self.fused_linear = model.device.type == "cpu" if fused is None else fused
        self._captured: dict[int, Tensor] = {}

    @property
    def config(self) -> Any:
        return self.model.config

    def new_cache(self, batch: int) -> TreeCache:
        return TreeCache(self.config, batch, self.model.dtype, self.model.device)

    def arrange(self) -> None:
        """Moves weights side by side that one op reads, as `attached` would: later calls find them where they are."""
        if self.fused_linear:
            for layer in self.decoder.layers:
                layer_forward(layer)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Installs tree attention and the feature hooks for a decoding run, and takes them away after it.

        Threads take turns: another one that wants to attach a target, this or any other, waits.
        """
        with TURN, ExitStack() as stack:
            before = self.config._attn_implementation
            self.model.set_attn_implementation(attention.NAME)
            stack.callback(self.model.set_attn_implementation, before)
            if self.fused is not False:
                stack.enter_context(fused_modules(self.model, self.fused_linear))
            for boundary in self.feature_layers:
                stack.callback(self._hook(boundary).remove)
            yield

    def _hook(self, boundary: int) -> Any:
        layers, thread = self.decoder.layers, get_ident()  # another thread may run the model for itself meanwhile

        def capture(states: Any) -> None:
            if get_ident() == thread:
                self._captured[boundary] = states[0] if isinstance(states, tuple) else states

        if boundary < len(layers):
            return layers[boundary].register_forward_pre_hook(lambda module, args: capture(args))

        last = layers[-1] if boundary == len(layers) else self.decoder.norm
        return last.register_forward_hook(lambda module, args, output: capture(output))

    def prefill(self, prompt: Tensor, lengths: Tensor, cache: TreeCache) -> TargetOutput:
        """Runs right-padded prompts into an empty cache.

        prompt:  [batch, tokens] int64; lengths: [batch] int32, real tokens of each row
        """
        cache.write_prompt()
        last = lengths.long() - 1
        keep, column = last.unique(return_inverse=True)
        positions = torch.arange(prompt.shape[1], device=prompt.device).expand_as(prompt)
        output = self._forward(prompt, positions, cache, logits_to_keep=keep)
        rows = torch.arange(len(column), device=column.device)
        return TargetOutput(output.logits[rows, column][:, None], output.features)

    def verify(self, tree: DraftTree, context_len: Tensor, cache: TreeCache) -> TargetOutput:
        """Runs every node of the trees in one forward; its rows go behind the committed ones.

        context_len: [batch] int32
        """
        return self.run(tree.draft_tokens.long(), tree.position_ids, context_len, tree.ancestor_mask, cache)

    def run(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        context_len: Tensor,
        ancestor_mask: Tensor,
        cache: TreeCache,
        first_row: int = 0,
    ) -> TargetOutput:
        """Runs rows behind the committed ones; row i goes to cache row context_len + first_row + i.

        token_ids:     [batch, rows] int64
        position_ids:  [batch, rows] int32
        context_len:   [batch] int32, committed rows, which every row attends
        ancestor_mask: [batch, rows, words] int64, bit r: attends cache row context_len + r
        """
        cache.write_tree(context_len + first_row, token_ids.shape[1])
        context = attention.TreeContext(context_len, ancestor_mask, self.feature_layers, self._captured)
        return self._forward(token_ids, position_ids.long(), cache, eagle_tree=context)

    def _forward(self, token_ids: Tensor, position_ids: Tensor, cache: TreeCache, **kwargs: Any) -> TargetOutput:
        logits = self.model(
            input_ids=token_ids, position_ids=position_ids, past_key_values=cache, use_cache=True, **kwargs
        ).logits
        captured = [self._captured[boundary] for boundary in self.feature_layers]
        self._captured.clear()
        features = torch.cat(captured, dim=-1) if captured else logits.new_empty(*token_ids.shape, 0)
        return TargetOutput(logits, features)
