"""The references in float64: the same functions, with every conversion to float32 turned into one to float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class InDouble(TorchFunctionMode):
    """Inside, `t.float()` gives float64."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return function(*args, **(kwargs or {})) if function is not torch.Tensor.float else args[0].double()


def widened(value: Any) -> Any:
    """A copy of an argument with floating tensors in float64; lists of tensors likewise."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() and value.dtype != torch.float64 else value.clone()
    return [widened(item) for item in value] if isinstance(value, list) else value


def copied(value: Any) -> Any:
    """A copy of an argument; lists of tensors likewise."""
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
