"""Checkpoints of a training: when they are due, what is written into them, how a run is put back to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import final

from throughtime.durable import remove_file
from throughtime.training.card import CARD
from throughtime.training.checkpoint import Checkpoint, gather
from throughtime.training.facts import FORMAT
from throughtime.training.journal import Recent
from throughtime.training.ranks import whole
from throughtime.training.resume import check, circumstances, refuse_finished, store
from throughtime.training.selection import Selection
from throughtime.training.session import Session
from throughtime.training.watch import Watch


@final
class Saving:
    """The checkpoints of one training.

    Attributes:
        checkpoints: the folders that they are written to.
    """

    def __init__(self, session: Session, selection: Selection):
        self._session, self._selection = session, selection
        self.checkpoints = store(session.folder, session.recipe)
        self._written_at = 0.0

    def is_due(self) -> bool:
        """Whether a checkpoint is due after the step that was made."""
        session = self._session
        training = session.recipe.training
        if training.checkpoint_every and session.steps % training.checkpoint_every == 0:
            return True
        return 0 < 60 * training.checkpoint_minutes <= session.seconds - self._written_at

    def write(self) -> None:
        """Write a checkpoint. Every process has to call it at the same time; the one that leads writes."""
        session, selection = self._session, self._selection
        arrays, learned = session.learner.taken_apart()
        arrays["best"] = selection.weights
        self._written_at = session.seconds
        if not session.ranks.leads:
            gather(arrays)
            return
        facts = {
            "format": FORMAT,
            "recipe": session.recipe.model_dump(mode="json"),
            **circumstances(session.data, session.ranks),
            "learner": learned,
            "watch": asdict(session.watch),
            "recent": session.recent.as_list(),
            "best": selection.facts,
            "seconds": session.seconds,
            "journal": session.journal.text(),
        }
        best = bool(selection.weights) and session.watch.since_best == 0
        self.checkpoints.write(session.steps, arrays, facts, best)

    def restore(self, start: Checkpoint) -> None:
        """Put the learner, the watch and the best model back to a checkpoint."""
        facts, session = start.facts, self._session
        session.learner.put_together(start.arrays, facts["learner"])
        session.watch, session.recent = Watch.of(facts["watch"]), Recent.from_list(facts["recent"])
        self._selection.restore(start.arrays["best"], facts["best"])

    def resume(self, start: Checkpoint, over: Callable[[], str | None]) -> None:
        """Put everything back to where a checkpoint was written, in the folder too.

        Args:
            start: the checkpoint.
            over: why there is nothing left to train; None where there is.

        Raises:
            ThroughtimeError: where the data differ from those of the run, or nothing is left to train.
        """
        session, selection = self._session, self._selection
        for note in check(session.folder, start.facts, circumstances(session.data, session.ranks)):
            session.display.say(note)
        self.restore(start)
        session.seconds = self._written_at = start.facts["seconds"]
        refuse_finished(session.folder, over(), session.steps, session.watch.since_best)
        session.journal.rewrite(start.facts["journal"])
        best = {name: whole(array) for name, array in selection.weights.items()}
        if session.ranks.leads:
            remove_file(session.folder / CARD)  # of a run that was interrupted, and is not at its end now
            if best:
                selection.write_model("best", session.learner.model, selection.facts, best)
