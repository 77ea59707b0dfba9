"""Cells of other packages and of the user's own scripts: imported because somebody named them, and only then."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType

from throughtime.cells.base import Cell
from throughtime.cells.registry import family
from throughtime.errors import SettingError
from throughtime.untrusted import printable

OWN = "throughtime.cells."
_FILES: dict[str, str] = {}
"""The file of each module that was imported as one."""


def import_cells(name: str) -> list[str]:
    """Import a module that defines cells.

    Args:
        name: a module on Python's path, or a file that ends in .py, which becomes the module of its stem. One that was
            imported before is not run again.

    Returns:
        `MODULE:CLASS` for each class of cells that it defines, as `model.cell` takes it.

    Raises:
        SettingError: where there is no such module or file, or it fails.
    """
    try:
        module = _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise SettingError(f"cannot import {name}: {printable(str(error))}") from error
        there = f"{name.replace('.', os.sep)}.py"
        remedy = there if Path(there).exists() else "path/to/file.py"
        raise SettingError(
            f"there is no module {name!r} on Python's path; a file is named as one: --import {remedy}"
        ) from None
    except Exception as error:
        line = printable(" ".join(str(error).split()))
        raise SettingError(f"cannot import {name}: {type(error).__name__}: {line}") from error
    return [f"{module.__name__}:{cell.__name__}" for cell in _cells_of(module)]


def registered_by(name: str) -> str:
    """What `import_cells` takes to define a cell; empty for a cell of this package.

    Raises:
        SettingError: where the cell is not registered.
    """
    module = family(name).cell.__module__
    if module.startswith(OWN):
        return ""
    if module == "__main__":
        file = getattr(sys.modules[module], "__file__", None)
        return os.path.abspath(file) if file else ""
    return _FILES.get(module, module)


def _import_file(path: Path) -> ModuleType:
    file, name = path.expanduser().absolute(), path.stem
    if not file.is_file():
        raise SettingError(f"there is no file {path} to import")
    known = sys.modules.get(name)
    if known is not None:
        if os.path.realpath(getattr(known, "__file__", None) or "") == os.path.realpath(file):
            return known
        raise SettingError(f"cannot import {path}: there is another module {name!r} already; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SettingError(f"cannot import {path}: it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _FILES[name] = str(file)
    return module


def _cells_of(module: ModuleType) -> list[type[Cell]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Cell)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    ]
