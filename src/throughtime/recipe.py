"""One frozen, validated tree of settings: TOML in, TOML out; an unknown key is an error.

Every setting the system has stands in this file, with its unit and its meaning under it. Other parts receive the
branch they need (`recipe.text`, `recipe.streams`, ...) and never read a file of settings themselves.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.untrusted import is_utf8, printable, read_file

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Natural = Annotated[int, Field(ge=1, lt=2**63)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Units = Annotated[int, Field(ge=1, le=2**24)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _names(value: Any) -> Any:
    """One name as a list of one, and paths as their names."""
    listed = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(listed, list | tuple):
        return listed
    return [os.fspath(name) if isinstance(name, os.PathLike) else name for name in listed]


MOST_LAYERS = 1000
_SIZE = TypeAdapter(Units, config=ConfigDict(strict=True))
_SIZE_EACH = TypeAdapter(Annotated[tuple[Units, ...], Field(strict=False)], config=ConfigDict(strict=True))


def _sizes(value: Any) -> Any:
    """One size, or one for each layer. Not a union, whose errors would speak of both."""
    if not isinstance(value, list | tuple):
        return _SIZE.validate_python(value)
    if not 1 <= len(value) <= MOST_LAYERS:
        raise ValueError(f"should be one whole number or a list of 1 to {MOST_LAYERS:,}, got {len(value):,} of them")
    return _SIZE_EACH.validate_python(value)


Sizes = Annotated[int | tuple[int, ...], PlainValidator(_sizes)]
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Sources = Annotated[tuple[Name, ...], Field(strict=False), BeforeValidator(_names)]

DEEPEST = 16
"""Most names in the path of an assignment; no setting lies so deep."""
FINDINGS = 8
"""Most wrong settings that an error names."""
SHOWN = 100
"""Most characters of a wrong value, or of the name of an unknown setting, that an error repeats."""

BUDGETS = ("steps", "epochs", "minutes")
SEPARATOR = "text.separator"
NAMES_OF_FILES = ("text.sources", "text.valid", "text.test")
ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\\": "\\"}


class Settings(BaseModel):
    """A branch of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        for name, value in self:
            if not is_utf8(json.dumps(value, ensure_ascii=False, default=str)):
                raise ValueError(f"{name} should be UTF-8, as recipe.toml is, got {value!r}; a file can be renamed")
        return self


class Text(Settings):
    """Bytes to ids: where the text comes from and what a token is."""

    sources: Sources = ()
    """Files, folders, globs, `-` (standard input), `builtin` (Python's language reference), `builtin:stdlib`."""
    valid: Sources = ()
    """Texts to validate on; when given, `split` takes no share for it."""
    test: Sources = ()
    """Texts to test on; when given, `split` takes no share for it."""
    split: Annotated[tuple[Share, Share, Share], Field(strict=False)] = (0.9, 0.05, 0.05)
    """Shares of the bytes for training, validation and test, in the order of the text; they sum to 1."""
    encoding: str = "utf-8"
    """Encoding of the texts, by Python's name; `utf-8-sig` leaves out a byte-order mark. Bytes need none."""
    newlines: Literal["keep", "lf"] = "keep"
    """`lf` turns every CR LF into LF."""
    separator: Annotated[str, Field(max_length=1000)] = ""
    """Text that ends a document inside a file; empty: every file is one document."""
    tokens: Literal["byte", "char", "word", "bpe"] = "char"
    """What a token is."""
    vocabulary_size: Annotated[int, Field(ge=2, le=2**31)] = 8192
    """Most tokens a `word` or `bpe` vocabulary may hold."""
    minimum_count: Natural = 2
    """A `word`, or a pair that `bpe` would merge, seen less often in the training text is not in the vocabulary."""
    fit_bytes: Natural = 268_435_456
    """Most bytes of training text a vocabulary is built from, taken in evenly spaced pieces (`char`: all of it)."""
    workers: Whole = 0
    """Processes that make words or byte pairs of a large text; 0: as many as there are cores."""

    @model_validator(mode="before")
    @classmethod
    def _files_take_no_share(cls, values: Any) -> Any:
        """Files named for validation or test stand in for the default split, not for one the user wrote.

        A test text alone leaves the validation share: without one, nothing would tell the best model.
        """
        if isinstance(values, Mapping) and "split" not in values and (values.get("valid") or values.get("test")):
            return {**values, "split": (1.0, 0.0, 0.0) if values.get("valid") else (0.95, 0.05, 0.0)}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(sum(self.split) - 1) > 1e-6:
            raise ValueError(f"split must sum to 1, got {list(self.split)}, which sums to {sum(self.split):g}")
        for name, share in zip(("valid", "test"), self.split[1:], strict=True):
            if getattr(self, name) and share:
                raise ValueError(f"{name} names files, so split must give it 0, got {list(self.split)}")
        if not self.split[0]:
            raise ValueError(f"split must leave a share for training, got {list(self.split)}")
        try:
            "".encode(self.encoding)
        except (LookupError, UnicodeError):
            raise ValueError(f"encoding must be one that Python knows, got {self.encoding!r}; try 'latin-1'") from None
        return self


class Streams(Settings):
    """Ids to windows: how the stream is cut into minibatches."""

    partition: Literal["sequential", "random"] = "sequential"
    """`sequential`: lanes in order, the state is carried; `random`: windows in any order, the state is reset."""
    lanes: Natural = 32
    """Sequences side by side in a minibatch."""
    window: Natural = 64
    """Tokens of each lane in a minibatch; their mean where `gradient.truncation` is `variable`."""


class Model(Settings):
    """Cells to outputs: the network."""

    cell: str = "lstm"
    """A name that `throughtime cells` lists."""
    cell_options: dict[str, bool | int | Finite | str] = Field(default_factory=dict)
    """Options of the cell, such as `forget_bias` of an LSTM."""
    hidden_size: Sizes = 256
    """Units of every layer; or a list, from the input up, with the units of each: [400, 1150, 400]."""
    layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = 1
    """Layers of the stack; left out where `hidden_size` lists them."""
    embedding_size: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Size of a token's vector; 0: as the last layer where `tied`, else as the first."""
    tied: bool = False
    """The output layer uses the embedding's matrix."""
    dropout: Probability = 0.0
    """Probability that a unit is dropped on the embedding, between layers and before the output."""
    weight_drop: Probability = 0.0
    """Probability that a weight on the state is dropped, for a window (Wan et al. 2013, Merity et al. 2017)."""
    recurrent_dropout: Probability = 0.0
    """Probability that a unit of the state is dropped from its product, for a window (Gal & Ghahramani 2016)."""
    engine: Literal["auto", "native", "torch", "reference"] = "auto"
    """What runs a sequence: `native` the kernel, `torch` PyTorch's fused form, `reference` the cell's own step, `auto`
    the first of these that there is."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of the products in the native engine; `bf16` rounds what is multiplied to 16 bits, and nothing else."""

    @model_validator(mode="before")
    @classmethod
    def _count_layers(cls, values: Any) -> Any:
        """A list of sizes says how many layers there are."""
        if isinstance(values, Mapping) and "layers" not in values:
            sizes = values.get("hidden_size")
            if isinstance(sizes, list | tuple) and 0 < len(sizes) <= MOST_LAYERS:
                return {**values, "layers": len(sizes)}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.hidden_size, tuple) and len(self.hidden_size) != self.layers:
            raise ValueError(
                f"layers must be {len(self.hidden_size)}, as many as hidden_size lists, or be left out, "
                f"got {self.layers}"
            )
        if self.tied and self.embedding_size not in (0, self.widths[-1]):
            last = "hidden_size" if isinstance(self.hidden_size, int) else "the last hidden_size"
            raise ValueError(
                f"tied needs embedding_size equal to {last} ({self.widths[-1]}) or 0, got {self.embedding_size}"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer, from the input up."""
        return self.hidden_size if isinstance(self.hidden_size, tuple) else (self.hidden_size,) * self.layers

    @property
    def embedding_width(self) -> int:
        """Size of a token's vector."""
        return self.embedding_size or self.widths[-1 if self.tied else 0]

    @property
    def units(self) -> str:
        """The units of the layers for people: `256`, or `400-1150-400` where they are listed."""
        return f"{self.hidden_size:,}" if isinstance(self.hidden_size, int) else "-".join(map(str, self.hidden_size))


class Gradient(Settings):
    """Loss to gradient: how far back it goes and how large it may get."""

    truncation: Literal["none", "fixed", "variable", "random"] = "fixed"
    """`none`: back to the beginning of the epoch, with one update an epoch; `fixed`: over `reach` tokens; `variable`:
    over windows whose length is drawn; `random`: for each lane until a cut that is drawn, reweighted."""
    reach: Whole = 0
    """`fixed`: tokens from the end of a window back to where its gradient ends; 0: as many as the window has."""
    lengths: Literal["normal", "geometric"] = "normal"
    """`variable`: how windows are drawn; what passes within a `geometric` one is reweighted."""
    deviation: NonNegative = 5.0
    """`variable`, `normal`: standard deviation of a window's length, in tokens."""
    halved: Share = 0.05
    """`variable`, `normal`: probability that a window is drawn around half the length."""
    cut: Probability = 0.0
    """`random`: probability of a cut at a step; 0: 1 / `streams.window`."""
    cut_end: Probability | None = None
    """`random`: that probability at the end of the budget, to which it goes evenly; left out: the same."""
    memory: Natural = 1024
    """`none`: MB that may be kept for the way back; what does not fit is made again, in a second pass forwards."""
    clip_norm: NonNegative = 1.0
    """Largest global norm of the gradient of the mean loss; 0: any."""
    clip_value: NonNegative = 0.0
    """Largest absolute value of one entry of the gradient, applied before the norm's bounds; 0: any."""
    clip_quantile: Share = 0.0
    """Largest global norm, as this quantile of the norms of the last 1,000 steps; 0: any. It tightens `clip_norm`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cut_end == 0:
            raise ValueError("cut_end must be above 0, got 0; without cuts the gradient would go back for ever")
        return self


class Training(Settings):
    """The loop: how long, how fast, how it is watched."""

    steps: Natural | None = None
    """Budget in optimizer steps. One of `steps`, `epochs`, `minutes`."""
    epochs: Positive | None = None
    """Budget in passes over the training text."""
    minutes: Positive | None = None
    """Budget in minutes by the clock, validation included."""
    seed: Whole = 0
    """Seed of everything random."""
    learning_rate: Positive = 4e-3
    """Highest learning rate of AdamW."""
    warmup: Share = 0.02
    """Share of the budget in which the learning rate rises from 0."""
    final_rate: Share = 0.02
    """Learning rate at the end of the cosine, as a share of the highest."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of AdamW's mean of squared gradients."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay of matrices; biases have none."""
    validations: Natural = 10
    """Validations, evenly spread over the budget; the last stands at its end."""
    patience: Whole = 0
    """Stop after this many validations without a better one; 0: never."""
    sample_tokens: Whole = 150
    """Tokens of sample text at each validation; 0: none."""
    nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    """A loss or gradient that is not finite: `stop` ends the training, `skip` leaves the minibatch out, `rollback` goes
    back to the last checkpoint with a lower learning rate."""
    rollback_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What a rollback multiplies the learning rate by."""
    checkpoint_every: Whole = 0
    """Steps between checkpoints; 0: as the clock says."""
    checkpoint_minutes: NonNegative = 2.0
    """Minutes between checkpoints; 0: as the steps say. There is one at the end in any case."""
    checkpoint_keep: Natural = 2
    """The newest checkpoints that are kept."""
    checkpoint_keep_every: Whole = 0
    """Of the older checkpoints each n-th is kept too; 0: none."""
    signs_every: Whole = 500
    """Steps between looks at gradients and units, layer by layer, which the journal keeps; 0: none."""
    shard: bool = False
    """Deal weights, gradients and means to the processes, for a model that outgrows a machine; one keeps all."""
    threads: Whole = 0
    """Processor threads; 0: all that the process may use."""

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and all(values.get(budget) is None for budget in BUDGETS):
            return {**values, "minutes": 5.0}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [budget for budget in BUDGETS if getattr(self, budget) is not None]
        if len(given) > 1:
            raise ValueError(f"the budget must be one of steps, epochs or minutes, got {' and '.join(given)}")
        return self


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
