"""A CUDA graph's rules on a CPU: a step's operations, recorded once, are repeated on the same memory without Python."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FORBIDDEN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
READS = ("tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__")
UPLOADS = ("tensor", "as_tensor", "from_numpy")


class HostReadError(AssertionError):
    """What a capture would not allow."""


class NoHostReads(TorchFunctionMode):
    """Raises HostReadError where Python asks a tensor for its values, or makes one of its own values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READS + UPLOADS:
            raise HostReadError(f"{func.__name__} moves values between the device and Python")
        return func(*args, **kwargs or {})


class Capturable(TorchDispatchMode):
    """Raises HostReadError for operations that wait for the device, whose shapes depend on values, that draw noise, or
    that go from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.check(func, args)
        results = func(*args, **kwargs)
        involved = {t.device.type for t in tensors((args, kwargs, results)) if t.dim() > 0}
        if len(involved) > 1:
            raise HostReadError(f"{func} goes between {' and '.join(sorted(involved))}")
        return results

    def check(self, func: Any, args: Any) -> None:
        name = func._schema.name
        if name in INDEXING:
            if any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1])):
                raise HostReadError(f"{func} with a mask: how many elements it touches depends on values")
        elif name == "aten::dropout" and not args[2]:
            return  # outside of training it hands its input on
        elif FORBIDDEN & set(func.tags):
            raise HostReadError(f"{func} depends on values or draws noise")


class Tape(Capturable):
    """Records a step without letting it take effect; `replay` repeats exactly what was recorded, on the same memory."""

    def __init__(self, step: Callable[[], None]):
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.replays = 0
        try:
            with NoHostReads(), self:
                step()
        finally:
            for storage, content in self.before.values():
                storage.copy_(content)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(lambda leaf: leaf, (args, kwargs or {}))
        for written in writes(func, args, kwargs):
            storage = written.untyped_storage()
            if storage.data_ptr() not in self.made | self.before.keys():
                self.before[storage.data_ptr()] = (storage, storage.clone())
        results = super().__torch_dispatch__(func, types, args, kwargs)
        given = {memory(t) for t in tensors((args, kwargs))}
        self.made |= {memory(t) for t in tensors(results)} - given
        self.operations.append((func, args, kwargs, results))
        return results

    def signature(self) -> list[Any]:
        """The operations with all that a replay would freeze: shapes, memory from outside the step, Python's values."""

        def frozen(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if leaf.dim() == 0 and memory(leaf) not in self.made:
                return leaf.item()  # a number of Python's, wrapped
            return leaf.shape, leaf.stride(), leaf.dtype, None if memory(leaf) in self.made else leaf.data_ptr()

        return [(str(func), tree_map(frozen, (args, kwargs))) for func, args, kwargs, _ in self.operations]

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, recorded in self.operations:
            for old, new in zip(tensors(recorded), tensors(func(*args, **kwargs)), strict=True):
                if memory(old) != memory(new):
                    old.copy_(new)


def tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def memory(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def writes(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation writes to, by its schema."""
    written = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(args[place] if place < len(args) else kwargs.get(argument.name))
    return tensors(written)
