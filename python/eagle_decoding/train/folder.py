"""The folder of a run: its configuration and its checkpoints, and what a run that goes on must share with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle_decoding.files import write_text
from eagle_decoding.train.config import ConfigError, TrainConfig, dump_config, load_config
from eagle_decoding.train.state import StateError, TrainState, newest_state, save_state, sweep

MAY_CHANGE = ("target", "out", "data.features", "optim", "log")


@dataclass(frozen=True)
class RunFolder:
    """path: the `out` folder. writes: whether this process writes; others only read. note: told what went wrong."""

    path: Path
    writes: bool
    note: Callable[[str], None]

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def open(self, config: TrainConfig) -> TrainState | None:
        """The newest whole state of a run that was begun here, or None at its beginning.

        Raises ConfigError if the run was begun with other data, another head or another objective.
        """
        state = newest_state(self.checkpoints, self.note)
        if state:
            check_same_run(begun_with(self.path), config)
        if self.writes:
            write_text(self.path / "config.yaml", dump_config(config))
            sweep(self.checkpoints)
        return state

    def save(self, state: TrainState) -> None:
        """Write a checkpoint. Raises StateError if the disk does not take it."""
        if self.writes:
            save_state(self.checkpoints, state)

    def try_to_save(self, state: TrainState) -> None:
        """Write a checkpoint; if the disk does not take it, note that and leave the earlier ones as they are."""
        try:
            self.save(state)
        except StateError as error:
            self.note(f"{error} Training goes on.")


def begun_with(folder: Path) -> TrainConfig:
    """The configuration of the run in a folder. Raises ConfigError, saying what to do, if it is missing or damaged."""
    path = folder / "config.yaml"
    try:
        config = load_config(path)
        if not config.target:
            raise ConfigError("it names no target")
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"What the run in {folder} was begun with cannot be read from {path} ({str(error).rstrip('.')}); put its "
            "configuration there again, or start another run with another `out`."
        ) from error
    return config


def check_same_run(begun: TrainConfig, now: TrainConfig) -> None:
    """Raises ConfigError naming the first key that a run cannot change once it was begun."""
    before, after = _flat(dataclasses.asdict(begun)), _flat(dataclasses.asdict(now))
    for key, value in before.items():
        if value != after[key] and not any(key == free or key.startswith(free + ".") for free in MAY_CHANGE):
            raise ConfigError(
                f"The run in {now.out} was begun with {key}={value!r}, not {after[key]!r}; "
                "give it the same again, or start another run with another `out`."
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
