"""What the commands that use a trained model share: the RUN and TEXT arguments and how they are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from throughtime.cli.streams import say_error
from throughtime.untrusted import is_utf8

if TYPE_CHECKING:
    from throughtime.recipe import Recipe
    from throughtime.runtime import Model
    from throughtime.text.ids import TokenIds
    from throughtime.text.tokenizer import Tokenizer

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
run_argument: Decorator = click.argument("run", type=click.Path(path_type=Path))
weights_option: Decorator = click.option(
    "--weights",
    type=click.Choice(["float32", "bf16", "int8"]),
    help="How the weights are held while the model runs; default: as they are in the folder.",
)
text_argument: Decorator = click.argument("text", required=False)


def _known_encoding(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    try:
        "".encode(name or "utf-8")
    except (LookupError, UnicodeError, ValueError):
        raise click.BadParameter(f"Python knows no encoding {name!r}; try 'utf-8' or 'cp1252'") from None
    return name


encoding_option: Decorator = click.option(
    "--encoding",
    metavar="NAME",
    callback=_known_encoding,
    help="Encoding of TEXT; default: as the run's texts have it.",
)


def utf8(_: click.Context, __: click.Parameter, given: Any) -> Any:
    """Callback of options that take text, unlike the name of a file, of which every one must be UTF-8."""
    for text in given if isinstance(given, tuple) else (given or "",):
        if not is_utf8(text):
            raise click.BadParameter(f"{text!r} is not UTF-8")
    return given


def _import(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    if names:
        from throughtime.cells.outside import import_cells

        return tuple(cell for name in names for cell in import_cells(name))
    return ()


def importing(exposed: bool) -> Decorator:
    """The option --import; where it is exposed, the command gets the names of the cells as `imported`."""
    return click.option(
        "--import",
        "imported",
        metavar="MODULE|FILE.py",
        multiple=True,
        callback=_import,
        expose_value=exposed,
        help="Import a module that defines cells; may be repeated.",
    )


import_option: Decorator = importing(exposed=False)


class Opened(NamedTuple):
    """A model that runs, and what belongs to it."""

    model: Model
    recipe: Recipe | None
    """None for a model folder outside its run."""
    folder: Path
    """Where the model lies."""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.tokenizer

    @property
    def separator(self) -> str:
        return self.model.separator


class Belongings(Protocol):
    """What a text is opened by: of a model that runs, or of one in PyTorch (`models.saved.Loaded`)."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def separator(self) -> str: ...
    @property
    def recipe(self) -> Recipe | None: ...
    @property
    def folder(self) -> Path: ...


def load_model(run: Path, weights: str | None = None) -> Model:
    """The model in RUN: on the kernels of the runtime, or on PyTorch where its cell has none.

    Raises:
        SettingError: where the cell has no kernel and `weights` asks for a form that only kernels have.
    """
    from throughtime import runtime
    from throughtime.runtime.network import NoKernelError

    try:
        return runtime.load(run, weights)
    except NoKernelError as error:
        if weights is not None:
            raise NoKernelError(f"{error}; leave --weights {weights} out") from None
    from throughtime.models.saved import load_runtime

    return load_runtime(run)


def open_run(run: Path, weights: str | None = None) -> Opened:
    """The model that a command works with, and its recipe."""
    from throughtime import folder

    place = folder.find(run)
    return Opened(load_model(run, weights), folder.recipe_beside(place), place.folder)


def open_text(opened: Belongings, text: str | None, encoding: str | None = None) -> tuple[str, TokenIds]:
    """The name and the ids of TEXT, or of what the run held out where none is named.

    What is odd about TEXT is said on standard error. What the run held out is read only if the digests that the run
    keeps confirm it.
    """
    from throughtime import folder
    from throughtime.errors import SettingError, ThroughtimeError
    from throughtime.text.dataset import held_out, tokenise
    from throughtime.text.settings import Text
    from throughtime.untrusted import printable

    if encoding is not None and (text is None or opened.tokenizer.kind == "byte"):
        why = "the tokens are bytes" if text is not None else "it is that of TEXT, and none is named"
        raise SettingError(f"--encoding {encoding} has nothing to do: {why}; leave it out")
    settings = opened.recipe.text if opened.recipe else Text()
    settings = settings.model_copy(update={"tokens": opened.tokenizer.kind, "separator": opened.separator})
    if text is not None:
        settings = settings.model_copy(update={"encoding": encoding or settings.encoding})
        ids, notes = tokenise([text], opened.tokenizer, settings)
        for note in notes:
            say_error(note)
    elif opened.recipe is None:
        raise ThroughtimeError(f"{opened.folder} has no recipe.toml that says what was held out; name a text")
    else:
        text, ids = held_out(settings, opened.tokenizer, folder.text_digests(opened.folder))
    if len(ids) < 2:
        raise ThroughtimeError(f"{printable(text)} has {len(ids)} token; with fewer than 2 there is nothing to predict")
    return text, ids
