"""The registry of cells: names in recipes, and what they stand for.

A cell of another package, or of a user's script, is registered by being imported (`outside.import_cells`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from throughtime import engine as engines
from throughtime.engine.forms import FORMS, Form
from throughtime.errors import SettingError
from throughtime.untrusted import printable

if TYPE_CHECKING:
    from throughtime.cells.base import Cell
    from throughtime.cells.sequence import Unroll

ENGINES = ("auto", "native", "torch", "reference")


@dataclass(frozen=True)
class Family:
    """A registered cell: its class, and the faster forms of its equations, where there are any."""

    cell: type[Cell]
    fused: Unroll | None = None
    """PyTorch's."""
    native: Form | None = None
    """A kernel's."""


_FAMILIES: dict[str, Family] = {}


def register(name: str, fused: Unroll | None = None, native: bool = False) -> Callable[[type[Cell]], type[Cell]]:
    """Class decorator: make a cell known by a name to recipes, the command line and the tests.

    Args:
        name: what it is called.
        fused: PyTorch's form of its equations, if any.
        native: whether there is a kernel; `engine.forms` then says which, under this name.
    """

    def enter(cell: type[Cell]) -> type[Cell]:
        if name in _FAMILIES:
            raise ValueError(f"there is a cell {name!r} already: {_FAMILIES[name].cell.__qualname__}")
        if ":" in name:
            raise ValueError(f"the name of a cell has no colon, got {name!r}; MODULE:CLASS is the name of every class")
        if native:
            cell.form = FORMS[name]
        _FAMILIES[name] = Family(cell, fused, cell.form)
        return cell

    return enter


def unregister(name: str) -> None:
    """Remove a registration, so that a notebook, say, can define the cell again."""
    _FAMILIES.pop(name, None)


def names() -> list[str]:
    """The registered cells."""
    return sorted(_FAMILIES)


def family(name: str, registered_by: str = "") -> Family:
    """The registration under a name.

    Args:
        name: one of `names()`, or `MODULE:CLASS` for a class of a module that has been imported; nothing is imported.
        registered_by: the module or file that is known to register the cell, for the message.

    Raises:
        SettingError: where there is none.
    """
    found = _FAMILIES.get(name) or (None if name.startswith("__main__:") else _family_of_class(name))
    if found is not None:
        return found
    module, colon, _ = name.partition(":")
    shown = printable(repr(name))
    if module == "__main__" and colon:
        raise SettingError(f"the cell {shown} is of the script itself; register it: @cells.register('a-name')")
    if registered_by or (colon and module not in sys.modules):
        where = printable(registered_by or module)
        raise SettingError(f"the cell {shown} is not registered: {where} defines it; add --import {where}")
    if colon:
        raise SettingError(f"there is no cell {shown}: the module {printable(module)} has no such class of cells")
    raise SettingError(f"there is no cell {shown}; there are {', '.join(names())}")


def _family_of_class(name: str) -> Family | None:
    from throughtime.cells.base import Cell

    module, _, attribute = name.partition(":")
    # The module's own dictionary: its __getattr__ might run code, and the name may come from a run folder.
    found = vars(sys.modules[module]).get(attribute) if sys.modules.get(module) else None
    if not isinstance(found, type) or not issubclass(found, Cell) or inspect.isabstract(found):
        return None
    return next((family for family in _FAMILIES.values() if family.cell is found), Family(found))


def create(
    name: str,
    input_size: int,
    hidden_size: int,
    *,
    engine: str = "auto",
    precision: str = "float32",
    **options: Any,
) -> Cell:
    """A cell by its registered name.

    Args:
        name: one of `names()`.
        input_size: D.
        hidden_size: H.
        engine: `native` the kernel, `torch` PyTorch's fused form, `reference` the cell's own step, `auto` the first of
            these that there is. Where the package was installed without kernels, `native` runs as `auto` does there;
            the cell's `engine` and `reason` say what runs.
        precision: `float32`, or `bf16` for the products of the native form.
        options: what the cell's class takes, such as `forget_bias`; `generator` seeds the initial parameters.

    Raises:
        SettingError: where the name, the engine or an option is unknown.
    """
    registered = family(name)
    known = [option for option in inspect.signature(registered.cell).parameters if not option.endswith("_size")]
    for option in options:
        if option not in known:
            raise SettingError(f"the cell {name} has no option {option!r}; it has {', '.join(known)}")
    if engine not in ENGINES:
        raise SettingError(f"engine must be {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, got {engine!r}")
    if precision not in engines.PRECISIONS:
        raise SettingError(f"precision must be {' or '.join(engines.PRECISIONS)}, got {precision!r}")
    if registered.native is None and engine == "native":
        raise SettingError(f"the cell {name} cannot run native: it has no kernel; use engine auto")
    if engine == "torch" and registered.fused is None:
        raise SettingError(f"PyTorch has no fused form of the cell {name}; use engine auto or reference")
    engines.level()  # says so now where the environment names one that is not there
    cell = registered.cell(input_size, hidden_size, **options)
    cell._asked = engine
    if registered.fused is not None and engine != "reference":
        cell._unroll = registered.fused
    if registered.native is not None and engine in ("auto", "native"):
        cell._form, cell.precision = registered.native, precision
    elif precision != "float32":
        raise SettingError(f"precision {precision} needs the native engine, and the cell {name} runs on {cell.engine}")
    return cell
