"""Which kernels there are. They were built for several levels of instruction sets; the fastest that runs here is used.

The environment variable THROUGHTIME_ISA names another one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from throughtime.errors import SettingError

_broken = ""
try:
    from throughtime.engine import _native
except ImportError as error:
    _native = None  # type: ignore[assignment]
    if error.path and not error.path.endswith("__init__.py"):  # the file is there; without a compiler there is none
        _broken = " ".join(str(error).split())

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from throughtime.engine._native import Network, Recurrence, Sampler, Separator

VARIABLE = "THROUGHTIME_ISA"
PRECISIONS = ("float32", "bf16")
"""bf16: weights and states are rounded to 16 bits where they are multiplied (bfloat16, or half floats with scales,
which are finer); all else is float32."""
STATE_TOLERANCE = {"float32": 1e-5, "bf16": 1e-2, "int8": 1e-2}
"""Difference at which two entries of a state count as equal, relative above 1, by how products are made: what rounding
leaves between two sequences of states that approach each other."""


def levels() -> list[str]:
    """The levels that were built and that this processor runs, the best last; none where there are no kernels."""
    return _native.levels() if _native else []


@cache
def level() -> str | None:
    """The level in use; None where there are no kernels.

    Raises:
        SettingError: where THROUGHTIME_ISA names one that is not there.
    """
    found = levels()
    wanted = os.environ.get(VARIABLE)
    if wanted and wanted not in found:
        raise SettingError(f"{VARIABLE} must be one of {', '.join(found) or 'nothing (no kernels)'}, got {wanted!r}")
    return wanted or (found[-1] if found else None)


def obstacle() -> str | None:
    """Why there are no kernels, in a few words; None where there are some.

    Raises:
        SettingError: as `level` does.
    """
    if level() is not None:
        return None
    if _broken:
        return f"the kernels cannot be loaded: {_broken}"
    return "installed without kernels" if _native is None else "the kernels were built for another processor"


def kernel(cell: str, precision: str = "float32") -> Recurrence | None:
    """The kernel of a cell; None where there are no kernels.

    Raises:
        KeyError: where there is none of that name.
    """
    chosen = level()
    return _native.recurrence(chosen, cell, precision == "bf16") if chosen else None


def memory(size: int) -> NDArray[np.uint8]:
    """So many bytes of undefined content.

    The block is used again once nobody holds it: a fresh one would come from the system page by page, which takes
    longer than a kernel needs to fill it.

    Raises:
        RuntimeError: where there are no kernels.
    """
    if _native is None:
        raise RuntimeError("there are no native kernels here; see `throughtime doctor`")
    return _native.memory(size)


def network(table_bytes: int) -> Network | None:
    """An empty network of the level in use; None where there are no kernels.

    What its first layer makes of every token is made once where it takes no more than `table_bytes`.
    """
    chosen = level()
    return _native.Network(chosen, table_bytes) if chosen else None


def sampler(vocabulary_size: int, **choice: Any) -> Sampler | None:
    """What draws tokens for one lane; None where there are no kernels."""
    return _native.Sampler(vocabulary_size, **choice) if _native else None


def separator(pieces: Sequence[bytes], text: bytes) -> Separator | None:
    """What finds the ends of documents in tokens; None where there are no kernels."""
    return _native.Separator(pieces, text) if _native else None


def describe() -> str:
    """One line on what there is, for people.

    Raises:
        SettingError: as `level` does.
    """
    chosen = level()
    if chosen is None:
        why = "was installed without a C++ compiler" if _native is None else "was built for another processor"
        why = f"has kernels that cannot be loaded ({_broken})" if _broken else why
        return f"no native kernels: the package {why}, so cells run on PyTorch; install it again to have them"
    return f"native kernels of level {chosen} (of {', '.join(levels())})"
