"""Beginning a training, and going on with one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from throughtime import recipe as recipes
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.folder import RECIPE
from throughtime.machine import usable_threads
from throughtime.recipe import Recipe
from throughtime.tasks.base import Data, Task
from throughtime.tasks.registry import make_task
from throughtime.training.display import Display, Silence
from throughtime.training.introduction import introduction
from throughtime.training.launch import begun_here, claim, release
from throughtime.training.learner import Learner
from throughtime.training.lock import locked
from throughtime.training.loop import Result, Trainer
from throughtime.training.ranks import Ranks, others_needed, started_again, this_rank
from throughtime.training.resume import find_checkpoint
from throughtime.training.run import check_free, free_folder, with_cell_source
from throughtime.training.start import refuse_no_run


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path, out: str | Path | None = None, display: Display | None = None
) -> Result:
    """Train a model as a recipe says.

    Args:
        recipe: a Recipe, a tree of settings, the name of a recipe, or a TOML file.
        out: the run folder, which must not hold anything yet; None: a new one under runs/.
        display: shows how it goes; None: nothing does.

    PyTorch goes on with the recipe's number of threads afterwards. What else the caller has set there (no gradients,
    another default type or device, autocast) does not matter to the training, and is as before afterwards.

    Raises:
        ThroughtimeError: where a setting is wrong, a text cannot be read, the folder is in use, or the loss is no
            longer finite.
        TerminationError: where the system asked it to end; `resume` goes on.
    """
    recipe = _recipe(recipe)
    with _ordinary_pytorch():
        mine = this_rank()
        with others_needed(mine):
            return _begin(recipe, None if out is None else recipes.expanded(out), display, mine)


def resume(out: str | Path, changes: Mapping[str, Any] | None = None, display: Display | None = None) -> Result:
    """Go on with a run from its newest checkpoint that holds, as if nothing had happened.

    Args:
        out: the run folder.
        changes: a tree of settings to be laid over the run's own; those that decide the numbers must be the same.
        display: as for `train`.

    Raises:
        ThroughtimeError, TerminationError: as `train` does; and where there is no run, its budget is used up, or its
            recipe, text or tokeniser was another.
    """
    with _ordinary_pytorch():
        mine = this_rank()
        with others_needed(mine):
            return _go_on(recipes.expanded(out), changes or {}, display, mine)


def dry_run(recipe: Recipe) -> list[str]:
    """What `train` would say first. The text is read and tokenised, the model built, nothing trained or written."""
    data = make_task(recipe).read()
    learner = Learner(recipe, data, Ranks())
    return introduction(recipe, data, learner.source, learner.model)


def _recipe(given: Recipe | Mapping[str, Any] | str | Path) -> Recipe:
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Path):
        return recipes.load(given)
    if isinstance(given, str):
        given = recipes.read(given)
    if not isinstance(given, Mapping):
        raise SettingError(
            f"a recipe is a Recipe, a tree of settings, a name or a TOML file, got a {type(given).__name__}"
        )
    return recipes.build(given)


@contextmanager
def _ordinary_pytorch() -> Iterator[None]:
    """PyTorch as it is when a program begins, whatever the caller has set."""
    dtype = torch.get_default_dtype()
    with ExitStack() as kept:
        kept.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        kept.enter_context(torch.inference_mode(False))
        kept.enter_context(torch.enable_grad())
        if torch.is_autocast_enabled("cpu"):
            kept.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            kept.enter_context(torch.device("cpu"))
        yield


def _begin(recipe: Recipe, out: Path | None, display: Display | None, mine: Ranks) -> Result:
    if started_again():
        if out is None:
            raise ThroughtimeError("the processes were started again, and only --out tells which run was theirs")
        if begun_here(out, mine) and mine.share(b"1" if mine.leads and (out / RECIPE).exists() else b""):
            return _go_on(out, {}, display, mine)
    recipe = with_cell_source(recipe)
    task = make_task(recipe)
    task.refuse_streams(mine.count)
    data = _read(recipe, mine, task.read)
    folder = Path(os.fsdecode(mine.share(os.fsencode(_new_folder(out, task)) if mine.leads else b"")))
    with _held(folder, mine), closing(_shown(display, mine)) as shown:
        if mine.leads:
            check_free(folder)  # another training may have come first
            claim(folder)
        result = Trainer(task.settled(), data, folder, shown, mine).run(None)
        if mine.leads:
            release(folder)
        return result


def _go_on(folder: Path, changes: Mapping[str, Any], display: Display | None, mine: Ranks) -> Result:
    if mine.leads:
        refuse_no_run(folder)
    with _held(folder, mine), closing(_shown(display, mine)) as shown:
        found = find_checkpoint(folder, changes) if mine.leads else None
        for note in found.notes if found else ():
            shown.say(note)
        tree = json.loads(mine.share(json.dumps(found.recipe.model_dump(mode="json") if found else {}).encode()))
        recipe = recipes.build(tree)
        task = make_task(recipe)
        task.refuse_streams(mine.count)
        task.await_input(changes, folder)
        data = _read(recipe, mine, lambda: task.read_again(folder))
        result = Trainer(recipe, data, folder, shown, mine).run(found.checkpoint if found else None)
        if mine.leads:
            release(folder)
        return result


def _new_folder(out: Path | None, task: Task) -> Path:
    if out is None:
        return free_folder(task.run_name())
    check_free(out)
    return out


def _read(recipe: Recipe, mine: Ranks, read: Callable[[], Data]) -> Data:
    """The data, read by one process of a machine first; and as many threads as are this process's."""
    threads = max(1, usable_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(min(recipe.training.threads or threads, threads))
    with mine.in_turn():
        data = read()
    digests = json.dumps(data.fingerprints()).encode()
    if mine.share(digests) != digests:
        raise ThroughtimeError(
            f"{', '.join(data.sources())} is another text here than where the first process runs; "
            "give every machine the same"
        )
    return data


def _held(folder: Path, mine: Ranks) -> AbstractContextManager[None]:
    return locked(folder) if mine.leads else nullcontext()


def _shown(display: Display | None, mine: Ranks) -> Display:
    return display if display is not None and mine.leads else Silence()
