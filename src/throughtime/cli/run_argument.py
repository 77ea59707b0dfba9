"""What the commands that use a trained model share: the RUN and TEXT arguments and how they are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from throughtime.text.ids import IdsFile
    from throughtime.training.run import Loaded

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
run_argument: Decorator = click.argument("run", type=click.Path(path_type=Path))
text_argument: Decorator = click.argument("text", required=False)


def open_run(run: Path) -> Loaded:
    """The model that a command works with."""
    from throughtime.training.run import load

    return load(run)


def open_text(loaded: Loaded, text: str | None) -> tuple[str, IdsFile]:
    """The name and the ids of TEXT, or of what the run held out where none is named."""
    from throughtime.errors import ThroughtimeError
    from throughtime.recipe import Text
    from throughtime.text.dataset import held_out, tokenise

    if text is not None:
        settings = loaded.recipe.text if loaded.recipe else Text.model_validate({"tokens": loaded.tokenizer.kind})
        ids = tokenise([text], loaded.tokenizer, settings)
    elif loaded.recipe is None:
        raise ThroughtimeError(f"{loaded.folder} has no recipe.toml that says what was held out; name a text")
    else:
        text, ids = held_out(loaded.recipe.text, loaded.tokenizer)
    if len(ids) < 2:
        raise ThroughtimeError(f"{text} has {len(ids)} token; with fewer than 2 there is nothing to predict")
    return text, ids
