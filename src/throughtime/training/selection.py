"""Validation in training: the model is measured, written down, and kept if it is the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from throughtime.errors import ThroughtimeError
from throughtime.models.base import SequenceModel, count_parameters
from throughtime.models.registry import make_network
from throughtime.models.saved import save_model
from throughtime.objective.report import Report
from throughtime.training.budget import Budget
from throughtime.training.display import quoted
from throughtime.training.optimizer import Arrays
from throughtime.training.predictor import TorchPredictor
from throughtime.training.ranks import DistributedPredictor
from throughtime.training.session import Session
from throughtime.training.validation import Load, Schedule, ScheduleByClock, ScheduleBySteps


@final
class Selection:
    """The best model of a training by the scores of its validations.

    Attributes:
        weights: those of the best model, sharded as the model is; empty before the first validation.
        facts: what its model.json says of how they came about.
        latest: the figures of the last validation; None before the first, or without a validation split.
        schedule: when validations are due.
    """

    def __init__(self, session: Session, budget: Budget):
        self._session, self._budget = session, budget
        self.weights: Arrays = {}
        self.facts: dict[str, Any] = {}
        self.latest: Report | None = None
        self.schedule = self._make_schedule()

    def restore(self, weights: Arrays, facts: Mapping[str, Any]) -> None:
        """Take over the best model of a checkpoint, after the session's watch."""
        self.weights, self.facts = weights, dict(facts)
        self.schedule = self._make_schedule()

    def validate(self) -> None:
        """Measure the model, keep it if it is the best so far, show a sample. What learns is not touched."""
        began = time.perf_counter()
        session = self._session
        watch, counts = session.watch, session.learner.counts
        self.schedule.plan(session.seconds, counts.tokens)
        facts: dict[str, Any] = {"step": counts.steps, "tokens": counts.tokens}
        model = session.learner.measured_model()
        finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        improved = self._measure(model, facts) if "valid" in session.data.splits else finite
        watch.since_best = 0 if improved else watch.since_best + 1
        if improved:
            self.weights, self.facts = session.learner.weights(), facts
        if not finite:
            session.display.say(f"step {counts.steps:,}: the weights are not finite; this model is not kept")
        elif session.ranks.leads:
            for name in ("best", "last") if improved else ("last",):
                self.write_model(name, model, facts)
            if session.recipe.training.sample_tokens:
                self._write_sample(model)
        [seconds] = session.ranks.add_up([], [time.perf_counter() - began if session.ranks.leads else 0.0])
        self.schedule.add(session.seconds, seconds)

    def write_model(
        self, name: str, model: SequenceModel, facts: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write a model folder; with the digests by which the data are known again when the model is used."""
        session = self._session
        facts = {**facts, "texts": session.data.fingerprints()["text"]}
        save_model(session.folder / name, model, facts, weights, session.data.description())

    def evaluate_best(self) -> tuple[str | None, Report | None]:
        """The split that is left for it, and the exact figures of the best model there; None without such a split.

        Raises:
            ThroughtimeError: where there is no best model.
        """
        session = self._session
        if not self.weights:
            raise ThroughtimeError(
                f"training diverged: none of the validations of {session.folder} gave a finite loss, so there is no "
                "best model; lower training.learning_rate or gradient.clip_norm"
            )
        session.learner.model.load_state_dict(self.weights)
        split = next((name for name in ("test", "valid") if name in session.data.splits), None)
        if split is None:
            return None, None
        return split, session.data.evaluate(self._predictor(session.learner.whole_model()), split)

    def _measure(self, model: SequenceModel, facts: dict[str, Any]) -> bool:
        """Estimate the figures of the validation split, which go into the facts; whether they are the best so far.

        A score that is not finite never is: nothing could be better than it afterwards.
        """
        session = self._session
        watch = session.watch
        found = session.data.estimate(self._predictor(model), watch.validations.tokens or None)
        self.latest, score = found, found.score
        improved = math.isfinite(score) and (watch.best is None or score < watch.best or not math.isfinite(watch.best))
        watch.best = score if improved else watch.best
        facts["valid"] = found.as_dict()
        session.learner.optimizer.validated(score)
        session.journal.write("valid", **facts, seconds=round(session.seconds, 3), best=improved)
        remark = ", the best so far" if improved else "" if math.isfinite(score) else ", which is never the best"
        session.display.say(f"step {facts['step']:,}: valid {found.line()}{remark}")
        return improved

    def _predictor(self, model: SequenceModel) -> DistributedPredictor:
        return DistributedPredictor(TorchPredictor(model), self._session.ranks)

    def _write_sample(self, model: SequenceModel) -> None:
        session = self._session
        try:
            session.watch.sample = session.data.preview(make_network(session.data.task, model))
        except ThroughtimeError as error:
            session.display.say(f"no sample: {error}")
            return
        session.journal.write("sample", step=session.steps, text=session.watch.sample)
        session.display.say(quoted(session.watch.sample))

    def _make_schedule(self) -> Schedule:
        """The schedule of validations, on from what the watch remembers of them."""
        session, budget = self._session, self._budget
        training, record = session.recipe.training, session.watch.validations
        load = Load(*session.data.validation_load(), count_parameters(session.learner.model))
        if budget.minutes is not None:
            return ScheduleByClock(training.validations, load, record, 60 * budget.minutes)
        assert budget.steps is not None
        epochs = budget.steps / session.learner.truncation.updates(session.learner.source, 1.0)
        return ScheduleBySteps(training.validations, load, record, epochs * session.data.train_size)
