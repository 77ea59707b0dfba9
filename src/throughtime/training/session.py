"""The state that the parts of one training share: settings, data, run folder, display, processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from throughtime.folder import JOURNAL
from throughtime.recipe import Recipe
from throughtime.tasks.base import Data
from throughtime.training.display import Display, Moment
from throughtime.training.journal import Journal, Recent
from throughtime.training.learner import Learner
from throughtime.training.ranks import Ranks
from throughtime.training.watch import Watch


@final
@dataclass
class Session:
    """One training in one process. Of several processes, the one that leads writes and speaks.

    Attributes:
        learner: the model, its optimizer and the place in the data.
        journal: the journal of the run.
        watch: what a checkpoint keeps of the validations and warnings.
        recent: means over the steps since the last entry in the journal.
        seconds: time of the training so far.
    """

    recipe: Recipe
    data: Data
    folder: Path
    display: Display
    ranks: Ranks
    learner: Learner = field(init=False)
    journal: Journal = field(init=False)
    watch: Watch = field(default_factory=Watch)
    recent: Recent = field(default_factory=Recent)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.learner = Learner(self.recipe, self.data, self.ranks)
        self.journal = Journal(self.folder / JOURNAL, writes=self.ranks.leads)

    @property
    def steps(self) -> int:
        return self.learner.counts.steps

    def say_once(self, name: str, line: str | None) -> None:
        """Say a line, which has a name, unless it was said before; None: nothing."""
        if line is not None and name not in self.watch.warned:
            self.watch.warned.append(name)
            self.display.say(line)

    def show(self, progress: float, seconds_left: float | None) -> None:
        """Show how the training stands.

        Args:
            progress: share of the budget used, 0 to 1.
            seconds_left: until the budget is used up; None where that is not known.
        """
        self.display.show(
            Moment(
                step=self.steps,
                progress=progress,
                loss=self.recent.loss,
                items_per_second=self.recent.items_per_second,
                unit=self.data.loss_unit,
                seconds=self.seconds,
                seconds_left=seconds_left,
            )
        )

    def write_train_entry(self) -> None:
        """Write the means since the last entry into the journal."""
        counts, recent, unit = self.learner.counts, self.recent, self.data.loss_unit
        self.journal.write(
            "train",
            step=counts.steps,
            epoch=self.learner.position.at.epoch,
            **{unit.items: counts.tokens, unit.key: recent.loss},
            gradient_norm=recent.norm,
            clipped_share=recent.clipped,
            learning_rate=counts.rate,
            seconds=round(self.seconds, 3),
            **{f"{unit.items}_per_second": round(recent.items_per_second)},
        )
        self.recent = Recent(recent.loss, recent.items_per_second)
