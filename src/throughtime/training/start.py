"""What is checked before a training begins, so that a wrong start is refused once, and before processes are started."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import Recipe, Text, expanded
from throughtime.text.dataset import Dataset, prepare
from throughtime.text.sources import BUILTIN, STANDARD_INPUT
from throughtime.training.learner import check_model, cut
from throughtime.training.lock import locked
from throughtime.training.optimiser import Budget
from throughtime.training.ranks import Ranks
from throughtime.training.resume import check, circumstances, ended, find_checkpoint, refuse_finished
from throughtime.training.run import free_folder

INPUT_SECONDS = 10.0
"""Seconds that a run which is to go on waits for its text on standard input, where that was not named."""


def check_start(recipe: Recipe, out: Path, processes: int) -> None:
    """Refuse what so many processes could not train on.

    Raises:
        ThroughtimeError: as `train` does.
    """
    free_folder(out, recipe.text)
    refuse_streams(recipe.text, processes)
    _cut(recipe, prepare(recipe.text), processes)
    with locked(out):
        free_folder(out, recipe.text)


def check_resume(folder: Path, changes: Mapping[str, Any], processes: int) -> None:
    """Refuse what so many processes could not go on with.

    Raises:
        ThroughtimeError: as `resume` does.
    """
    refuse_no_run(folder)
    with locked(folder):
        found = find_checkpoint(folder, changes)
        recipe = found.recipe
        refuse_streams(recipe.text, processes)
        dataset = prepare_again(recipe.text, folder)
        budget = _cut(recipe, dataset, processes)
        if found.checkpoint is None:
            return
        facts = found.checkpoint.facts
        check(folder, facts, circumstances(dataset, Ranks(0, processes)))
        steps, since_best = facts["learner"]["counts"]["steps"], facts["watch"]["since_best"]
        ending = ended(recipe.training, budget.progress(steps, facts["seconds"]), since_best)
        refuse_finished(folder, ending, steps, since_best)


def refuse_no_run(folder: Path) -> None:
    """Refuse to go on where there is no folder (ThroughtimeError)."""
    if not folder.is_dir():
        raise ThroughtimeError(f"there is no run in {folder} to go on with; leave --resume out to begin one")


def refuse_streams(text: Text, processes: int) -> None:
    """Refuse texts that can be read only once where several processes would read them (SettingError)."""
    for name in (*text.sources, *text.valid, *text.test) if processes > 1 else ():
        path = expanded(name)
        if name in STANDARD_INPUT or (path.exists() and not (path.is_file() or path.is_dir())):
            what = "standard input" if name in STANDARD_INPUT else name
            raise SettingError(
                f"{what} can be read only once, and {processes} processes read the text; write it to a file"
            )


def await_input(text: Text, changes: Mapping[str, Any], folder: Path) -> None:
    """See that a run which is to go on does not wait for a text that never comes.

    Raises:
        ThroughtimeError: where the run was trained from standard input, and that is a terminal or no stream at all, or
            stays silent although it was not named anew; or from another pipe or device that was not named anew.
    """
    named = changes.get("text", {})
    for split, names in (("sources", text.sources), ("valid", text.valid), ("test", text.test)):
        for name in names:
            path = Path(name)
            if name in STANDARD_INPUT:
                _await_standard_input(folder, named=split in named)
            elif split not in named and path.exists() and not (path.is_file() or path.is_dir()):
                raise ThroughtimeError(
                    f"{name}, which the run in {folder} was trained on, is no file; it is read only where it is named: "
                    f"throughtime train {name} --out {folder} --resume"
                )


def _await_standard_input(folder: Path, named: bool) -> None:
    try:
        handle = sys.stdin.fileno()
        mode = os.fstat(handle).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or something that is no file
        handle, mode = -1, 0
    piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)
    if not piped or not (named or select.select([handle], [], [], INPUT_SECONDS)[0]):
        raise ThroughtimeError(
            f"the run in {folder} was trained from standard input, and nothing comes there; give the same text again: "
            f"throughtime train - --out {folder} --resume < TEXT"
        )


def prepare_again(text: Text, folder: Path) -> Dataset:
    """The text of a run that is to go on.

    Raises:
        ThroughtimeError: as `prepare` does; where a text is not there, the message says how to name where it is now.
    """
    try:
        return prepare(text)
    except ThroughtimeError as error:
        names = (*text.sources, *text.valid, *text.test)
        if all(name in (*STANDARD_INPUT, *BUILTIN) or expanded(name).exists() for name in names):
            raise
        raise type(error)(
            f"{error}; where the text has moved, name it anew: throughtime train TEXT --out {folder} --resume"
        ) from None


def _cut(recipe: Recipe, dataset: Dataset, processes: int) -> Budget:
    """What the processes will make of the text and the model, without making it."""
    truncation, partition = cut(recipe, dataset, Ranks(0, processes))
    check_model(recipe, dataset.tokenizer.vocabulary_size)
    return Budget.of(recipe.training, partial(truncation.updates, partition))
