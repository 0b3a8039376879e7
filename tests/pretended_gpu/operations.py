"""torch's own operations on the pretended GPU, done by the CPU on the same memory: pytest -p pretended_gpu.operations.

Tensors that are not all on one device are refused. During a capture an operation is noted, to be done again on the very
same addresses when its graph is launched, and one that the host would wait for breaks the capture.
"""

import ctypes
import os
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

RUNTIME = ctypes.CDLL(None)
RUNTIME.pretended_note.argtypes = [ctypes.c_void_p, ctypes.c_int64]
RUNTIME.pretended_note.restype = RUNTIME.pretended_capturing.restype = RUNTIME.pretended_is_pinned.restype = (
    ctypes.c_bool
)
RUNTIME.pretended_is_pinned.argtypes = [ctypes.c_void_p]

# Work on no element, or on the allocator's.
OF_THE_DEVICE = {
    "_reshape_alias", "_unsafe_view", "alias", "detach", "empty", "empty_like", "empty_strided", "is_pinned",
    "_pin_memory", "lift_fresh", "new_empty", "new_empty_strided", "record_stream", "resize_", "set_",
}  # fmt: skip
TAKE_INDICES = {"_index_put_impl_", "index", "index_put", "index_put_"}
MIX_DEVICES = {"_to_copy", "copy_", *TAKE_INDICES}
READ_BY_THE_HOST = {"_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nonzero"}

operations: list[Callable[[], None]] = []


@ctypes.CFUNCTYPE(None, ctypes.c_int64)
def repeat(number: int) -> None:
    try:
        operations[number]()
    except BaseException:  # nothing could carry it through the runtime
        traceback.print_exc()
        os._exit(1)


RUNTIME.pretended_run_operations_by(repeat)


def on_host(t: Tensor) -> Tensor:
    """A tensor of the device as one of the CPU: the same memory, which it does not own."""
    extent = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) + 1
    if t.numel() == 0:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)
    memory = (ctypes.c_char * (extent * t.element_size())).from_address(t.data_ptr())
    return torch.frombuffer(memory, dtype=t.dtype, count=extent).as_strided(t.shape, t.stride())


def to_host(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_cuda:
        return on_host(value)
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value


def waits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the host has to wait for an operation's result."""
    if name == "copy_":
        leaves = args[0].is_cuda != args[1].is_cuda
        pinned = any(RUNTIME.pretended_is_pinned(t.data_ptr()) for t in args[:2])
        return leaves and not (pinned and (kwargs.get("non_blocking") or args[2:3] == (True,)))
    if name == "_to_copy":
        return "device" in kwargs and torch.device(kwargs["device"]).type != args[0].device.type
    masks = name in TAKE_INDICES and any(t is not None and t.dtype == torch.bool for t in args[1])
    return name in READ_BY_THE_HOST or masks


class OnPretendedGpu(TorchDispatchMode):
    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            with self:
                return func.py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd](*args, **kwargs)
        namespace, name = func._schema.name.split("::")
        values, structure = tree_flatten((args, kwargs))
        tensors = [value for value in values if isinstance(value, Tensor)]
        device = kwargs.get("device")
        on_device = any(t.is_cuda for t in tensors) or (device is not None and torch.device(device).type == "cuda")
        plain = all(type(t) in (Tensor, torch.nn.Parameter) and t.device.type != "meta" for t in tensors)
        if namespace != "aten" or not on_device or not plain:
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if name in OF_THE_DEVICE or func.is_view:
            return func(*args, **kwargs)
        if name not in MIX_DEVICES and len({t.device for t in tensors if t.dim() > 0}) > 1:
            places = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in tensors)
            raise RuntimeError(f"aten::{name} takes tensors of one device, got {places}.")
        if RUNTIME.pretended_capturing() and waits(name, args, kwargs):
            torch.cuda.current_stream().synchronize()
        return self.done_by_the_cpu(func, values, structure, device)

    def done_by_the_cpu(self, func: Any, values: list[Any], structure: Any, device: Any) -> Any:
        hosted = [to_host(value) for value in values]
        args, kwargs = tree_unflatten(hosted, structure)
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        given = {id(there): here for there, here in zip(hosted, values, strict=True) if isinstance(there, Tensor)}
        results, form = tree_flatten(func(*args, **kwargs))
        stays = device is None or torch.device(device).type == "cuda"
        fresh = {}  # by place among the results: where the next launch puts them
        for i, result in enumerate(results):
            if isinstance(result, Tensor) and id(result) in given:
                results[i] = given[id(result)]
            elif isinstance(result, Tensor) and stays:
                results[i] = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="cuda")
                fresh[i] = on_host(results[i]).copy_(result)

        def again() -> None:
            repeated = tree_flatten(func(*args, **kwargs))[0]
            for i, place in fresh.items():
                place.copy_(repeated[i])

        if RUNTIME.pretended_note(torch.cuda.current_stream().cuda_stream, len(operations)):
            operations.append(again)
        return tree_unflatten(results, form)


def load_emulated_kernels(path: str) -> None:
    """Puts the extension with emulated kernels in the place of the one that was built for a GPU."""
    name = "eagle_kernels._C"
    spec = spec_from_file_location(name, path, loader=ExtensionFileLoader(name, path))
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def show(t: Tensor, **contents: Any) -> str:
    return as_text(on_host(t).clone() if t.is_cuda else t, **contents)


as_text, torch._tensor_str._str = torch._tensor_str._str, show  # the text of a tensor is made outside of every mode
torch.cuda._sleep = lambda cycles: None  # type: ignore[assignment]
for fused in ("flash", "mem_efficient", "cudnn"):
    getattr(torch.backends.cuda, f"enable_{fused}_sdp")(False)  # the CPU has no such operations
load_emulated_kernels(os.environ["PRETENDED_GPU_EXTENSION"])
OnPretendedGpu().__enter__()
