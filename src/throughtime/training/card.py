"""The card of a model: what it is, what it was trained on, how good it is, how to use it. All of it from the run.

The card is written last, so that a run with a whole card was brought to its end.
"""

from __future__ import annotations

from pathlib import Path

from throughtime.durable import replace_file
from throughtime.recipe import Recipe
from throughtime.tasks.base import Data
from throughtime.training.journal import Ended, Entries
from throughtime.untrusted import printable, read_file
from throughtime.version import VERSION

CARD = "card.md"
_LAST = "    throughtime evaluate "
"""Beginning of the last line of a card as it is written."""


def is_ended(folder: Path) -> bool:
    """Whether a run was brought to its end: it has a card, and not an empty or a half one from a killed process.

    Raises:
        ThroughtimeError: where the card is something other than a regular file.
    """
    card = folder / CARD
    if not card.exists():
        return False
    return any(line.startswith(_LAST.encode()) for line in read_file(card).splitlines())


def write_card(path: Path, recipe: Recipe, data: Data, entries: Entries) -> None:
    """Write the card of the run whose folder `path` lies in; facts that its journal has lost are left out."""
    model = recipe.model
    begun, ended = entries.begun, entries.ended
    lines = [
        f"# {printable(path.parent.resolve().name)}",
        "",
        f"A recurrent {data.task} model: {model.layers} layer(s) of {model.cell}, {model.units} units, "
        + (f"{begun.parameters:,} parameters, " if begun else "")
        + f"{data.headline()}. Made with throughtime {VERSION}.",
        "",
        "![loss curve](curve.svg)",
        "",
        "## Trained on",
        "",
        *(f"- {printable(name)}" for name in data.sources()),
        "",
        *(f"- {line}" for line in data.describe_splits()),
        "",
        (f"{ended.step:,} steps in {ended.seconds:,.0f} s ({ended.ending}), " if ended else "")
        + f"seed {recipe.training.seed}"
        + (f", {begun.threads} threads, run by {begun.engine}" if begun else "")
        + ". Every setting is in [recipe.toml](recipe.toml).",
    ]
    if ended and ended.split:
        lines += _figures(data, ended, ended.split)
    if entries.sampled:
        sample = printable(entries.sampled.text, several_lines=True)
        lines += ["", "## Sample", "", *(f"    {line}" for line in sample.rstrip("\n").split("\n"))]
    run = printable(str(path.parent))
    lines += ["", "## Use", "", f"    throughtime generate {run}", f"{_LAST}{run}"]
    replace_file(path, ("\n".join(lines) + "\n").encode())


def _figures(data: Data, ended: Ended, split: str) -> list[str]:
    return [
        "",
        f"## Measured on the {split} split",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in data.figures(ended.model_dump())),
    ]
