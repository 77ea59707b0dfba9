"""throughtime: recurrent networks for sequences, run at the speed of the machine, with nothing hidden.

Importing the package is light: PyTorch is loaded when `train`, `resume`, `load` or `cells` is first
touched; `runtime` never needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from throughtime.version import VERSION

if TYPE_CHECKING:
    from throughtime import cells, runtime
    from throughtime.models.saved import load
    from throughtime.recipe import Recipe
    from throughtime.training.train import resume, train

__version__ = VERSION
__all__ = ["Recipe", "__version__", "cells", "load", "resume", "runtime", "train"]

_HOME = {
    "Recipe": "throughtime.recipe",
    "load": "throughtime.models.saved",
    "resume": "throughtime.training.train",
    "train": "throughtime.training.train",
}


def __getattr__(name: str) -> Any:
    if name in ("cells", "runtime"):
        return import_module(f"throughtime.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'throughtime' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
