"""The policy for a loss or a gradient that is not finite: stop, leave the minibatch out, or roll back."""

from __future__ import annotations

from pathlib import Path

from throughtime.durable import replace_file
from throughtime.errors import ThroughtimeError
from throughtime.streams.batches import BatchIndex
from throughtime.training.learner import Step
from throughtime.training.resume import share
from throughtime.training.saving import Saving
from throughtime.training.session import Session
from throughtime.untrusted import to_json

SKIPS_IN_A_ROW = 50
ROLLBACKS = 10


def refuse(
    done: Step,
    session: Session,
    saving: Saving,
    has_best: bool,
) -> None:
    """Do what the recipe says about a step that was not finite.

    Args:
        done: the step.
        session: the training.
        saving: the checkpoints, for a rollback.
        has_best: whether there is a best model, for the message.

    Raises:
        ThroughtimeError: where the training ends.
    """
    training, watch, steps = session.recipe.training, session.watch, session.steps
    batch = _write_batch(done.at, session)
    epoch, number = done.at
    where = f"step {steps} (epoch {epoch}, window {number}): loss {done.loss}, gradient norm {done.norm}"
    facts = {"epoch": epoch, "window": number, "loss": str(done.loss), "batch": batch.name}
    session.journal.write("nonfinite", step=steps, **facts, policy=training.nonfinite)
    watch.skipped_in_a_row += 1
    if training.nonfinite == "skip" and watch.skipped_in_a_row <= SKIPS_IN_A_ROW:
        session.display.say(f"left out {where}; its minibatch is in {batch}; the state begins anew")
        session.learner.forget()  # the state that it left may not be finite either
    elif training.nonfinite == "rollback" and watch.rollbacks < ROLLBACKS:
        _roll_back(where, session, saving)
    else:
        kept = f"{session.folder / 'best'} is kept" if has_best else "there was no validation yet"
        raise ThroughtimeError(
            f"training diverged at {where}; its minibatch is in {batch}; {kept}; "
            "lower training.learning_rate or gradient.clip_norm, or set training.nonfinite = 'skip' or 'rollback'"
        )


def _roll_back(where: str, session: Session, saving: Saving) -> None:
    rollbacks = session.watch.rollbacks + 1
    scale = session.learner.counts.rate_scale * session.recipe.training.rollback_rate
    newest = saving.checkpoints.newest().checkpoint if session.ranks.leads else None
    found = share(newest, session.ranks, session.learner.keep)
    if found is None:
        raise ThroughtimeError(f"training diverged at {where}; {saving.checkpoints.folder} has nothing to go back to")
    saving.restore(found)
    session.watch.rollbacks, session.learner.counts.rate_scale = rollbacks, scale
    session.display.say(f"went back from {where} to step {found.step}, on with {scale:g} of the learning rate")


def _write_batch(at: BatchIndex, session: Session) -> Path:
    """A minibatch in a file of its own: what each lane read."""
    path = session.folder / f"nonfinite-{session.steps}.json"
    if session.ranks.leads:
        lanes = session.data.show(session.learner.source.of_all_lanes()[at])
        content = {"epoch": at.epoch, "window": at.batch, "lanes": lanes}
        replace_file(path, (to_json(content) + "\n").encode())
    return path
