"""The parts lie on floors, in the way of the data; a part imports only from floors above its own. No cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "throughtime"
FLOORS = [
    {
        "errors",
        "durable",
        "version",
        "machine",
        "untrusted",
        "settings",
        "recipe",
        "recipes",
        "folder",
        "states",
        "parameters",
    },
    {"text"},
    {"streams"},
    {"engine"},
    {"objective"},
    {"runtime"},
    {"tasks"},
    {"cells"},
    {"models"},
    {"gradient"},
    {"training"},
    {"probe", "export", "serve"},
    {"cli"},
]
ABOVE = {part: set().union(*FLOORS[:level]) for level, floor in enumerate(FLOORS) for part in floor}
ABOVE["runtime"] = {*FLOORS[0], "text", "streams", "engine"}
ABOVE["states"] = set()
ABOVE["untrusted"] = {"errors"}
ABOVE["parameters"] = {"settings"}
ABOVE["settings"] = {"errors", "untrusted"}
ABOVE["recipe"] = {"errors", "version", "untrusted", "settings"}
ABOVE["durable"] = {"errors", "untrusted"}
ABOVE["folder"] = {"errors", "durable", "recipe", "settings", "untrusted"}
ENTRANCES = {"__init__", "__main__"}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def part_of(module: str) -> str:
    """The part that a module belongs to; the settings of all parts are one, above them."""
    names = module.split(".")
    return "settings" if len(names) > 1 and names[1] == "settings" else names[0]


def imports(tree: ast.AST, top_level_only: bool = False) -> Iterator[str]:
    """The modules of this package that a file names in its imports, relative to the package."""
    for node in ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written from the package's root"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == "throughtime":
                yield name.removeprefix("throughtime").removeprefix(".")


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in ENTRANCES or p.parent != PACKAGE], ids=module_of)
def test_a_part_imports_only_from_floors_above(path):
    part = part_of(module_of(path))
    assert part in ABOVE, f"{part} is on no floor: DESIGN names the parts"
    for name in imports(ast.parse(path.read_text())):
        assert name, f"{path.name} imports the package's own entrance"
        assert part_of(name) in ABOVE[part] | {part}, f"{module_of(path)} must not import throughtime.{name}"


def test_no_import_cycles():
    modules = {module_of(path): path for path in FILES}
    known = {}
    for name, path in modules.items():
        targets = (
            next((t for t in (target, target.rpartition(".")[0]) if t in modules), None)
            for target in imports(ast.parse(path.read_text()), top_level_only=True)
        )
        known[name] = {target for target in targets if target and target != name}

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail, name])}"
        # A package's entrance imports its files, which may name the package: that is no cycle of files.
        for target in known[name]:
            if not name.startswith(target + "."):
                walk(target, (*trail, name))

    for name in modules:
        walk(name, ())


@pytest.mark.parametrize("part", ["gradient", "training"])
def test_the_loop_knows_no_data_and_no_particular_task_or_model(part):
    general = {f"tasks.{name}" for name in ("base", "registry")}
    general |= {f"models.{name}" for name in ("base", "registry", "saved", "settings")}
    for path in (PACKAGE / part).glob("*.py"):
        for name in imports(ast.parse(path.read_text())):
            first = name.split(".")[0]
            if part_of(name) == "settings":
                continue
            assert first not in ("text", "data"), f"{module_of(path)} must not import throughtime.{name}"
            if first in ("tasks", "models"):
                module = ".".join(name.split(".")[:2])
                assert module in general, f"{module_of(path)} must not import throughtime.{name}"


def test_every_command_has_a_file_and_every_file_is_a_command():
    from throughtime.cli.main import COMMANDS

    helpers = {"__init__", "main", "output", "run_argument", "streams"}
    assert {path.stem for path in (PACKAGE / "cli").glob("*.py")} - helpers == set(COMMANDS)
