"""One frozen, validated tree of settings: TOML in, TOML out; an unknown key is an error.

The settings of a part stand beside it, in its `settings.py`. Other parts receive the branch they need (`recipe.text`,
`recipe.streams`, ...) and never read a file of settings themselves.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.gradient.settings import Gradient
from throughtime.models.settings import Model
from throughtime.settings import CHANGEABLE, Settings
from throughtime.streams.settings import Streams
from throughtime.text.settings import Text
from throughtime.training.settings import BUDGETS, Training
from throughtime.untrusted import printable, read_file

DEEPEST = 16
"""Most names in the path of an assignment; no setting lies so deep."""
FINDINGS = 8
"""Most wrong settings that an error names."""
SHOWN = 100
"""Most characters of a wrong value, or of the name of an unknown setting, that an error repeats."""

SEPARATOR = "text.separator"
NAMES_OF_FILES = ("text.sources", "text.valid", "text.test")
ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\\": "\\"}


class Recipe(Settings):
    """Everything that decides how a run turns out."""

    text: Text = Field(default_factory=Text)
    streams: Streams = Field(default_factory=Streams)
    model: Model = Field(default_factory=Model)
    gradient: Gradient = Field(default_factory=Gradient)
    training: Training = Field(default_factory=Training)

    @model_validator(mode="after")
    def _check(self) -> Self:
        gradient, streams = self.gradient, self.streams
        if streams.partition == "random" and (gradient.truncation in ("none", "variable") or gradient.reach):
            wish = "gradient.reach" if gradient.truncation == "fixed" else f"truncation {gradient.truncation!r}"
            raise ValueError(f"{wish} needs streams.partition 'sequential': random windows have nothing before them")
        if 0 < gradient.reach < streams.window:
            raise ValueError(
                f"gradient.reach must be 0 or at least streams.window ({streams.window}), got {gradient.reach}; "
                "lower the window for shorter truncation"
            )
        if gradient.truncation == "variable" and gradient.lengths == "geometric" and streams.window < 2:
            raise ValueError("gradient.lengths 'geometric' needs a streams.window of at least 2, got 1")
        if gradient.truncation == "random" and not gradient.cut and streams.window < 2:
            raise ValueError("gradient.cut must be given where streams.window is 1: 1 / window would cut at each step")
        if self.training.shard and gradient.truncation == "none":
            raise ValueError(
                "training.shard needs a gradient.truncation other than 'none', under which each process runs as many "
                "windows at once as its memory holds, while shares have to be gathered together"
            )
        return self


def build(tree: Mapping[str, Any]) -> Recipe:
    """Check a tree of plain values and freeze it.

    Raises:
        SettingError: with every unknown key and wrong value in one line.
    """
    try:
        return Recipe.model_validate(dict(tree))
    except ValidationError as error:
        found = error.errors()
        more = f"; and {len(found) - FINDINGS} more" if len(found) > FINDINGS else ""
        raise SettingError("; ".join(_describe(dict(detail)) for detail in found[:FINDINGS]) + more) from None


def read(name_or_file: str | Path) -> dict[str, Any]:
    """The tree in a recipe file (a Path, or a name that ends in `.toml`) or in a recipe that comes with the package.

    Raises:
        SettingError: where there is no such recipe, or the file cannot be read or is not TOML.
    """
    if isinstance(name_or_file, str) and not name_or_file.endswith(".toml"):
        if name_or_file not in names():
            raise SettingError(
                f"there is no recipe {name_or_file!r}; there are {', '.join(names())}, or a file that ends in .toml"
            )
        return tomllib.loads(_shipped().joinpath(f"{name_or_file}.toml").read_text("utf-8"))
    path = expanded(name_or_file)
    try:
        content = read_file(path)
    except ThroughtimeError as error:
        raise SettingError(printable(str(error)).replace("cannot read", "cannot read the recipe", 1)) from None
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, or an integer of too many digits
        raise SettingError(f"{printable(str(path))} is not TOML: {printable(str(error))}") from None


def load(path: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        SettingError: as `read` and `build` do; the message names the file.
    """
    tree = read(path)
    try:
        return build(tree)
    except SettingError as error:
        raise SettingError(f"{printable(str(path))}: {error}") from None


def changeable() -> list[str]:
    """The paths of the settings that a run may be resumed with other values of."""
    return [
        f"{section}.{name}"
        for section, branch in Recipe.model_fields.items()
        for name, field in branch.annotation.model_fields.items()  # type: ignore[union-attr]
        if CHANGEABLE in field.metadata
    ]


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` replaced by the home folder.

    Raises:
        SettingError: where that user has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SettingError(f"cannot find {printable(str(path))}: {' '.join(str(error).split())}") from None


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml"))


def change(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's tree with changes laid over it. A new budget replaces the old one, whatever its unit; a list of sizes
    replaces the number of layers."""
    training, changed = base.get("training"), changes.get("training")
    if isinstance(training, Mapping) and isinstance(changed, Mapping) and any(name in changed for name in BUDGETS):
        base = {**base, "training": {key: value for key, value in training.items() if key not in BUDGETS}}
    model, sizes = base.get("model"), changes.get("model")
    if isinstance(model, Mapping) and isinstance(sizes, Mapping) and isinstance(sizes.get("hidden_size"), list | tuple):
        base = {**base, "model": {key: value for key, value in model.items() if key != "layers"}}
    return merge(base, changes)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """One tree laid over another."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_assignment(assignment: str) -> dict[str, Any]:
    """`"a.b=value"` as a tree. The value is read as TOML; what is not TOML is a string.

    In a separator that is no TOML, `\\n`, `\\r`, `\\t` and `\\\\` are read, for a shell takes the quotes that
    TOML would need.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip() or path.count(".") >= DEEPEST:
        raise SettingError(f"a setting is written section.name=value, got {_shown(assignment)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = re.sub(r"\\[nrt\\]", lambda found: ESCAPES[found[0]], text) if path.strip() == SEPARATOR else text
    for key in reversed(path.strip().split(".")):
        value = {key: value}
    return dict(value)


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML that `read` takes back, each setting with its meaning above it."""
    import tomlkit

    document = tomlkit.document()
    for section in Recipe.model_fields:
        table = tomlkit.table()
        branch: Settings = getattr(recipe, section)
        for name, field in type(branch).model_fields.items():
            value = getattr(branch, name)
            if value is not None:
                table.add(tomlkit.comment(field.description or ""))
                table.add(name, _toml_item(value))
        document.add(section, table)
    return tomlkit.dumps(document)


def _toml_item(value: Any) -> Any:
    """A mapping on one line, as the other settings are; a table of its own would take what follows it along."""
    import tomlkit

    if isinstance(value, dict):
        item = tomlkit.inline_table()
        item.update(value)
        return item
    return list(value) if isinstance(value, tuple) else value


def _shipped() -> Traversable:
    return resources.files("throughtime") / "recipes"


def _describe(detail: Mapping[str, Any]) -> str:
    """One of pydantic's findings in this project's words."""
    path = printable(".".join(str(part) for part in detail["loc"]))
    if detail["type"] == "extra_forbidden":
        path = path if len(path) <= SHOWN else f"{path[:SHOWN]}..."
        near = difflib.get_close_matches(path, _paths(Recipe), n=1, cutoff=0.75)
        if near == [path]:
            section, name = path.split(".")
            nested = f"{{{section!r}: {{{name!r}: ...}}}}"
            return f"the key {path!r} should be nested: {nested}, in TOML {name} under [{section}]"
        return f"there is no setting {path}" + (f"; did you mean {near[0]}?" if near else "")
    if detail["type"] == "value_error":
        message = str(detail["ctx"]["error"])
        return f"{path}{'.' if f'{path}.{message.split()[0]}' in _paths(Recipe) else ': '}{message}"
    if detail["type"] == "string_unicode":
        remedy = "; rename the file, or name its folder" if path.startswith(NAMES_OF_FILES) else ""
        return f"{path}: should be UTF-8, as recipe.toml is, got {_shown(detail['input'])}{remedy}"
    return f"{path}: {detail['msg'].replace('Input should', 'should')}, got {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    """A wrong value for an error: printable, and not longer than a line bears."""
    try:
        shown = printable(repr(value))
    except ValueError:  # an integer of more digits than Python writes out
        return "an integer of thousands of digits"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def _paths(branch: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in branch.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from _paths(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name
