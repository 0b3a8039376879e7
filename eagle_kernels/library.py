"""Loads the compiled library; when that fails, says which of the usual reasons it is."""

import importlib
from types import ModuleType

import torch

MINIMUM_TORCH = (2, 10)


def load() -> ModuleType:
    """Imports the extension, which registers torch.ops.eagle_kernels.

    Raises ImportError with one sentence: torch too old, never built, or built but not loadable.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < MINIMUM_TORCH:
        raise ImportError(f"eagle_kernels needs torch >= 2.10 but found {torch.__version__}: upgrade torch.")
    try:
        return importlib.import_module("eagle_kernels._C")
    except ModuleNotFoundError as error:
        raise ImportError(
            "The compiled library of eagle_kernels is missing: build it with 'pip install --no-build-isolation -e .' "
            "in the source folder, or install a wheel."
        ) from error
    except ImportError as error:
        raise ImportError(
            f"The compiled library of eagle_kernels does not load into torch {torch.__version__}: {error}. Rebuild it."
        ) from error


_C = load()
