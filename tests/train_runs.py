"""A tiny target with token rows and features, and runs of the trainer on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from eagle_decoding.train.assemble import build_trainer
from eagle_decoding.train.capture import capture
from eagle_decoding.train.config import TrainConfig, load_config
from eagle_decoding.train.data import read_token_rows
from eagle_decoding.train.distributed import processes
from eagle_decoding.train.state import TrainState, newest_state
from eagle_decoding.train.target import frozen_target

SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
}


def make_workplace(
    folder: Path,
    model: type[PreTrainedModel] = LlamaForCausalLM,
    config: type[PreTrainedConfig] = LlamaConfig,
    **options: Any,
) -> Path:
    """A random target, greedy-looking token rows, and their features."""
    torch.manual_seed(0)
    target = model(config(**SIZES | options))
    target.save_pretrained(folder / "target")
    lengths = torch.randint(8, 30, (24,))
    answers = target.generate(torch.randint(0, 40, (24, 4)), max_length=30, do_sample=False, eos_token_id=None)
    save_file(
        {
            "ids": torch.cat([answer[:n] for answer, n in zip(answers, lengths, strict=True)]).to(torch.uint16),
            "length": lengths.int(),
            "prompt_len": torch.full((24,), 4, dtype=torch.int32),
            "temperature": torch.zeros(24),
        },
        folder / "rows.safetensors",
    )
    data = read_token_rows([folder / "rows.safetensors"])
    capture(frozen_target(folder / "target"), data, folder / "features", max_gb=1.0)
    return folder


def config_for(workplace: Path, out: Path, *overrides: str) -> TrainConfig:
    """A small run on the workplace: about ten packs an epoch."""
    return load_config(
        None,
        [
            f"target={workplace / 'target'}",
            f"out={out}",
            f"data.tokens=[{workplace / 'rows.safetensors'}]",
            f"data.features={workplace / 'features'}",
            "data.held_out=0.2",
            "data.pack_tokens=60",
            "head.draft_vocab_size=32",
            "head.fc_norm=true",
            "head.norm_output=true",
            "unroll.steps=3",
            "optim.epochs=4",
            "log.every=5",
            "log.eval_every=20",
            "log.save_every=3",
            *overrides,
        ],
    )


def run_to_the_end(config: TrainConfig, report: Callable[[dict[str, Any]], None] = lambda report: None) -> TrainState:
    """Train, or go on, in this process alone on one thread, whose number products may round by; returns the last
    checkpoint."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        build_trainer(config, report)[0].run()
    finally:
        torch.set_num_threads(threads)
    return last_state(config)


def train_in_team(config: TrainConfig, reports: Path | None = None) -> None:
    """What every process of a run does; the first one keeps its reports as a file."""
    collected: list[dict[str, Any]] = []
    with processes() as team:
        build_trainer(config, collected.append, team)[0].run()
        if team.first and reports:
            torch.save(collected, reports)


def last_state(config: TrainConfig) -> TrainState:
    state = newest_state(Path(config.out) / "checkpoints")
    assert state is not None
    return state


def assert_same_bits(actual: TrainState, expected: TrainState) -> None:
    """Equal in every bit: the head, the optimiser, and the place in the run; not the time it took."""
    assert actual.progress | {"seconds": 0} == expected.progress | {"seconds": 0}
    assert actual.head.keys() == expected.head.keys() and actual.optimizer.keys() == expected.optimizer.keys()
    for name, tensor in expected.head.items():
        assert torch.equal(tensor, actual.head[name]), name
    for index, entries in expected.optimizer.items():
        for name, tensor in entries.items():
            assert torch.equal(tensor, actual.optimizer[index][name]), (index, name)
