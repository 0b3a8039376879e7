"""Lets Triton 3.6's interpreter run on numpy 2.4, which no longer turns one-element arrays into integers.

Triton 3.7 has the fix (triton-lang/triton#9171); the interpreter must also work with 3.6, which torch 2.11 pins.
"""

from typing import Any

import triton


def repair() -> None:
    """Gives tensors of the interpreter an __index__; nothing where it is off or Triton needs no repair."""
    if not triton.knobs.runtime.interpret or not triton.__version__.startswith("3.6."):
        return
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch
