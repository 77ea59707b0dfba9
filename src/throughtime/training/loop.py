"""One training: batches in, a run folder out. It knows no cell, no model and no task by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import torch

from throughtime import recipe as recipes
from throughtime.durable import make_folder, replace_file
from throughtime.errors import TerminationError
from throughtime.folder import RECIPE
from throughtime.models.base import count_parameters
from throughtime.objective.report import Report
from throughtime.recipe import Recipe
from throughtime.tasks.base import Data
from throughtime.training.budget import Budget
from throughtime.training.card import CARD, write_card
from throughtime.training.checkpoint import Checkpoint
from throughtime.training.curve import draw_curve
from throughtime.training.display import Display
from throughtime.training.fit import check_fit
from throughtime.training.interruption import interruption
from throughtime.training.introduction import introduction
from throughtime.training.nonfinite import refuse
from throughtime.training.ranks import Ranks
from throughtime.training.resume import ended, share
from throughtime.training.run import Whereabouts
from throughtime.training.saving import Saving
from throughtime.training.selection import Selection
from throughtime.training.session import Session
from throughtime.training.signs import as_facts, warnings

ENTRIES = 100
"""Lines on the training loss in the journal, evenly spread over the budget."""


class Result(NamedTuple):
    """How a training ended."""

    folder: Path
    """The run folder."""
    steps: int
    seconds: float
    ending: str
    """`budget`, `patience` or `interrupted`."""
    split: str | None
    """The split that the best model was measured on at the end: `test`, else `valid`; None where the recipe leaves
    neither."""
    measure: Report | None
    """Its figures there."""
    sample: str
    """The last sample that was shown while it was trained; empty where the recipe asks for none."""


@final
class Trainer:
    """One training, from the first batch to the card.

    `run` does all of it. To run code between two steps, use the trainer as a context manager and call `step`:

        with trainer:
            trainer.begin(None)
            while trainer.step() is None:
                ...
            trainer.finish()
        result = trainer.end()

    Attributes:
        learner: the model, its optimizer and the place in the data.
        selection: the validations, and the best model.
        validated: whether the last step was followed by a validation.
    """

    def __init__(self, recipe: Recipe, data: Data, folder: Path, display: Display, ranks: Ranks):
        self.session = Session(recipe, data, folder, display, ranks)
        self.learner, self.model = self.session.learner, self.session.learner.model
        self.budget = Budget.of(recipe.training, partial(self.learner.truncation.updates, self.learner.source))
        self.selection = Selection(self.session, self.budget)
        self.saving = Saving(self.session, self.selection)
        self._began = 0.0
        self.validated = False
        self._ending: str | None = None
        self._whereabouts = Whereabouts(folder) if ranks.leads else None
        self._entered = ExitStack()

    def __enter__(self) -> Trainer:
        with ExitStack() as entered:
            entered.enter_context(closing(self.saving.checkpoints))
            patient = self.session.ranks.count > 1
            self._wish = entered.enter_context(interruption(self.session.display, patient))
            entered.enter_context(flushed_denormals())
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._entered.close()

    def run(self, start: Checkpoint | None) -> Result:
        """Train until the budget is used up, from the checkpoint that the process that leads has, or the beginning."""
        with self:
            self.begin(start)
            while self.step() is None:
                pass
            self.finish()
        return self.end()

    def begin(self, start: Checkpoint | None) -> None:
        """Write what a run folder begins with, or put the run back to where a checkpoint was written."""
        session = self.session
        lines = introduction(session.recipe, session.data, self.learner.source, self.model)
        if session.ranks.count > 1:
            shared = "the lanes and the weights" if self.learner.shards else "the lanes"
            lines.append(f"{session.ranks.count} processes of {torch.get_num_threads()} threads share {shared}")
        for line in lines:
            session.display.say(line)
        if start is not None:
            check_fit(start, self.learner)
        start = share(start, session.ranks, self.learner.keep)
        if start is not None:
            self.saving.resume(start, self._over)
        if session.ranks.leads:
            replace_file(session.folder / RECIPE, recipes.to_toml(session.recipe).encode())
            for name, content in session.data.files().items():
                replace_file(session.folder / name, content)
        if start is None:
            self._begin_journal(lines)
            if session.recipe.training.nonfinite == "rollback":
                self.saving.write()
        self._began = time.monotonic() - session.seconds
        self._ending = self._over()

    def step(self) -> str | None:
        """One update, and the validation, journal entry and checkpoint that are due after it.

        Returns:
            Why the training has ended: `budget`, `patience`, `interrupted`, `terminated`; None where it has not.
        """
        session = self.session
        if self._ending is not None:
            return self._ending
        before = self._progress()
        seconds = time.monotonic() - self._began if session.ranks.leads else 0.0
        session.seconds, interrupted, terminated = self._update(
            before, [seconds, self._wish() == "interrupted", self._wish() == "terminated"]
        )
        self._check_folder()
        progress = self._progress()
        session.show(progress, self.budget.seconds_left(session.steps, session.seconds))
        if int(progress * ENTRIES) > int(before * ENTRIES):
            session.write_train_entry()
        schedule = self.selection.schedule
        self.validated = schedule.due(before, progress, session.seconds, self.learner.counts.tokens)
        session.say_once("validations", schedule.note())
        if self.validated:
            self.selection.validate()
        self._ending = self._over() or ("terminated" if terminated else "interrupted" if interrupted else None)
        if self._ending or self.saving.is_due():
            self.saving.write()
        return self._ending

    def finish(self) -> None:
        """Wait for the last checkpoint, and validate what was trained since the last validation.

        Raises:
            TerminationError: where the system asked the training to end.
        """
        session = self.session
        self.saving.checkpoints.close()
        if self._ending == "terminated":
            raise TerminationError(
                f"terminated after step {session.steps:,}; `throughtime train --out {session.folder} --resume` goes on"
            )
        if not self.validated and (self._ending == "interrupted" or not self.selection.weights):
            session.write_train_entry()
            self.selection.validate()

    def end(self) -> Result:
        """Measure the best model, and write what sums the run up."""
        session, ending = self.session, self._ending or "interrupted"
        self._check_folder()
        split, found = self.selection.evaluate_best()
        session.journal.write(
            "end",
            ending=ending,
            step=session.steps,
            seconds=round(session.seconds, 3),
            split=split,
            **(found.as_dict() if found else {}),
        )
        if session.ranks.leads:
            entries = session.journal.entries()
            for note in entries.notes:
                session.display.say(note)
            draw_curve(entries, session.folder / "curve.svg")
            write_card(session.folder / CARD, session.recipe, session.data, entries)
        return Result(session.folder, session.steps, session.seconds, ending, split, found, session.watch.sample)

    def _check_folder(self) -> None:
        if self._whereabouts is not None:
            self._whereabouts.check()

    def _progress(self) -> float:
        return self.budget.progress(self.session.steps, self.session.seconds)

    def _over(self) -> str | None:
        """Why there is nothing left to train."""
        return ended(self.session.recipe.training, self._progress(), self.session.watch.since_best)

    def _begin_journal(self, lines: list[str]) -> None:
        session = self.session
        if session.ranks.leads:
            make_folder(self.saving.checkpoints.folder)  # empty until the first one: `resume` goes by it
        session.journal.rewrite("")
        session.journal.write(
            "begin",
            parameters=count_parameters(self.model),
            engine=self.model.engine,
            engine_reason=self.model.engine_reason,
            processes=session.ranks.count,
            threads=torch.get_num_threads(),
            loss=str(session.data.loss_unit),
            lines=lines,
        )

    def _update(self, progress: float, asked: list[float]) -> list[float]:
        """One update; the values asked along with it, summed over all processes."""
        session = self.session
        began = time.perf_counter()
        every = session.recipe.training.signs_every
        watched = every > 0 and (session.steps + 1) % every == 0
        done = self.learner.step(progress, asked, watched)
        if not done.finite:
            refuse(done, session, self.saving, bool(self.selection.weights))
            return done.told
        session.recent.add(done.loss, done.tokens, done.norm, done.bound, time.perf_counter() - began)
        session.watch.skipped_in_a_row = 0
        if done.signs:
            session.journal.write("signs", step=session.steps, layers=as_facts(done.signs))
            for name, line in warnings(done.signs, self.learner.source.window):
                session.say_once(name, f"step {session.steps:,}: {line}")
        return done.told


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small for a normal float32 become 0: they change nothing and cost a hundred times the time."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
