"""One training: windows in, a run folder out. It knows no cell by name."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import torch

from throughtime import recipe as recipes
from throughtime.durable import make_folder, remove_file, replace_file
from throughtime.errors import TerminationError, ThroughtimeError
from throughtime.folder import JOURNAL, RECIPE, TOKENIZER
from throughtime.models.base import SequenceModel, count_parameters
from throughtime.models.decoding import generate
from throughtime.objective.evaluation import estimate, evaluate, tokens_of_estimate
from throughtime.objective.measure import Measure
from throughtime.recipe import Recipe
from throughtime.streams.batches import BatchIndex
from throughtime.text.dataset import Dataset
from throughtime.text.ids import TokenIds
from throughtime.training.card import CARD, write_card
from throughtime.training.checkpoint import Checkpoint, gather
from throughtime.training.curve import draw_curve
from throughtime.training.display import Display, Moment, quoted
from throughtime.training.evaluation import InTraining
from throughtime.training.facts import FORMAT
from throughtime.training.fit import check_fit
from throughtime.training.interruption import interruption
from throughtime.training.introduction import introduction
from throughtime.training.journal import Journal, Recent
from throughtime.training.learner import Arrays, Learner, Step
from throughtime.training.optimiser import Budget
from throughtime.training.ranks import OverRanks, Ranks, whole
from throughtime.training.resume import check, circumstances, ended, identity, refuse_finished, share, store
from throughtime.training.run import Whereabouts, save_model
from throughtime.training.signs import Signs, as_facts, warnings
from throughtime.training.validation import Load, Schedule, ScheduleByClock, ScheduleBySteps
from throughtime.training.watch import Watch
from throughtime.untrusted import to_json

ENTRIES = 100
"""Lines on the training loss in the journal, evenly spread over the budget."""
SAMPLE_TEMPERATURE = 0.8
SKIPS_IN_A_ROW = 50
ROLLBACKS = 10


class Result(NamedTuple):
    """How a training ended."""

    folder: Path
    """The run folder."""
    kind: str
    """What a token is."""
    steps: int
    seconds: float
    ending: str
    """`budget`, `patience` or `interrupted`."""
    split: str | None
    """What the best model was measured on at the end: `test`, else `valid`; None where the recipe leaves neither."""
    measure: Measure | None
    """Its measure there."""
    sample: str
    """The last text it wrote while it was trained; empty where the recipe asks for none."""


@final
class Trainer:
    """One training, from the first window to the card. Of several processes, the one that leads writes and speaks."""

    def __init__(self, recipe: Recipe, dataset: Dataset, folder: Path, display: Display, ranks: Ranks):
        self.recipe, self.dataset, self.folder, self.display, self.ranks = recipe, dataset, folder, display, ranks
        self.learner = Learner(recipe, dataset, ranks)
        self.model = self.learner.model
        self.watch, self.recent = Watch(), Recent()
        self.best: Arrays = {}
        self.best_facts: dict[str, Any] = {}
        self.journal = Journal(self.folder / JOURNAL, writes=ranks.leads)
        self.budget = Budget.of(recipe.training, partial(self.learner.truncation.updates, self.learner.source))
        self.schedule = self._make_schedule()
        self.checkpoints = store(folder, recipe)
        self.seconds = self.written_at = 0.0
        self.whereabouts = Whereabouts(folder) if ranks.leads else None

    def run(self, start: Checkpoint | None) -> Result:
        """Train until the budget is used up, from the checkpoint that the process that leads has, or the beginning."""
        patient = self.ranks.count > 1
        with closing(self.checkpoints), interruption(self.display, patient) as wish, flushed_denormals():
            self._begin(start)
            began, before, validated = time.monotonic() - self.seconds, self._progress(), False
            ending = self._over()
            while ending is None:
                seconds = time.monotonic() - began if self.ranks.leads else 0.0
                self.seconds, interrupted, terminated = self._step(
                    before, [seconds, wish() == "interrupted", wish() == "terminated"]
                )
                self._check_folder()
                progress = self._progress()
                self.display.show(self._moment(progress))
                if int(progress * ENTRIES) > int(before * ENTRIES):
                    self._enter()
                validated = self.schedule.due(before, progress, self.seconds, self.learner.counts.tokens)
                self._say_once("validations", self.schedule.note())
                if validated:
                    self._validate()
                before = progress
                ending = self._over() or ("terminated" if terminated else "interrupted" if interrupted else None)
                if ending or self._checkpoint_is_due():
                    self._write_checkpoint()
            self.checkpoints.close()
            if ending == "terminated":
                raise TerminationError(
                    f"terminated after step {self.learner.counts.steps:,}; "
                    f"`throughtime train --out {self.folder} --resume` goes on"
                )
            if not validated and (ending == "interrupted" or not self.best):
                self._enter()
                self._validate()
        return self._end(ending)

    def _check_folder(self) -> None:
        if self.whereabouts is not None:
            self.whereabouts.check()

    def _progress(self) -> float:
        return self.budget.progress(self.learner.counts.steps, self.seconds)

    def _over(self) -> str | None:
        """Why there is nothing left to train."""
        return ended(self.recipe.training, self._progress(), self.watch.since_best)

    def _begin(self, start: Checkpoint | None) -> None:
        lines = introduction(self.recipe, self.dataset, self.learner.source, self.model)
        if self.ranks.count > 1:
            shared = "the lanes and the weights" if self.learner.shards else "the lanes"
            lines.append(f"{self.ranks.count} processes of {torch.get_num_threads()} threads share {shared}")
        for line in lines:
            self.display.say(line)
        if start is not None:
            check_fit(start, self.learner)
        start = share(start, self.ranks, self.learner.keep)
        if start is not None:
            self._go_on(start)
        if self.ranks.leads:
            replace_file(self.folder / RECIPE, recipes.to_toml(self.recipe).encode())
            replace_file(self.folder / TOKENIZER, self.dataset.tokenizer.to_json().encode())
        if start is not None:
            return
        if self.ranks.leads:
            make_folder(self.checkpoints.folder)  # empty until the first one: `resume` goes by it
        self.journal.rewrite("")
        self.journal.write(
            "begin",
            parameters=count_parameters(self.model),
            engine=self.model.engine,
            engine_reason=self.model.engine_reason,
            processes=self.ranks.count,
            threads=torch.get_num_threads(),
            lines=lines,
        )
        if self.recipe.training.nonfinite == "rollback":
            self._write_checkpoint()

    def _go_on(self, start: Checkpoint) -> None:
        """Put everything back to where the checkpoint was written, in the folder too."""
        for note in check(self.folder, start.facts, circumstances(self.dataset, self.ranks)):
            self.display.say(note)
        self._restore(start)
        self.seconds = self.written_at = start.facts["seconds"]
        refuse_finished(self.folder, self._over(), self.learner.counts.steps, self.watch.since_best)
        self.journal.rewrite(start.facts["journal"])
        best = {name: whole(array) for name, array in self.best.items()}
        if self.ranks.leads:
            remove_file(self.folder / CARD)  # of a run that was interrupted, and is not at its end now
            if best:
                self._save("best", self.model, self.best_facts, best)

    def _restore(self, start: Checkpoint) -> None:
        facts = start.facts
        self.learner.put_together(start.arrays, facts["learner"])
        self.best, self.best_facts = start.arrays["best"], facts["best"]
        self.watch, self.recent = Watch.of(facts["watch"]), Recent.from_list(facts["recent"])
        self.schedule = self._make_schedule()

    def _checkpoint_is_due(self) -> bool:
        training = self.recipe.training
        if training.checkpoint_every and self.learner.counts.steps % training.checkpoint_every == 0:
            return True
        return 0 < 60 * training.checkpoint_minutes <= self.seconds - self.written_at

    def _write_checkpoint(self) -> None:
        arrays, learned = self.learner.taken_apart()
        arrays["best"] = self.best
        self.written_at = self.seconds
        if not self.ranks.leads:
            gather(arrays)
            return
        facts = {
            "format": FORMAT,
            "recipe": self.recipe.model_dump(mode="json"),
            **circumstances(self.dataset, self.ranks),
            "learner": learned,
            "watch": asdict(self.watch),
            "recent": self.recent.as_list(),
            "best": self.best_facts,
            "seconds": self.seconds,
            "journal": self.journal.text(),
        }
        best = bool(self.best) and self.watch.since_best == 0
        self.checkpoints.write(self.learner.counts.steps, arrays, facts, best)

    def _step(self, progress: float, asked: Sequence[float]) -> list[float]:
        """One update; what was asked, summed over all processes."""
        began = time.perf_counter()
        every = self.recipe.training.signs_every
        watched = every > 0 and (self.learner.counts.steps + 1) % every == 0
        done = self.learner.step(progress, asked, watched)
        if done.finite:
            self.recent.add(done.loss, done.tokens, done.norm, done.bound, time.perf_counter() - began)
            self.watch.skipped_in_a_row = 0
            if done.signs:
                self._enter_signs(done.signs)
        else:
            self._refuse(done)
        return done.told

    def _enter_signs(self, found: list[Signs]) -> None:
        self.journal.write("signs", step=self.learner.counts.steps, layers=as_facts(found))
        for name, line in warnings(found, self.learner.source.window):
            self._say_once(name, f"step {self.learner.counts.steps:,}: {line}")

    def _say_once(self, name: str, line: str | None) -> None:
        if line is not None and name not in self.watch.warned:
            self.watch.warned.append(name)
            self.display.say(line)

    def _refuse(self, done: Step) -> None:
        """Stop, leave the minibatch out, or go back, as the recipe says."""
        training, watch, steps = self.recipe.training, self.watch, self.learner.counts.steps
        batch = self._write_out(done.at)
        epoch, window = done.at
        where = f"step {steps} (epoch {epoch}, window {window}): loss {done.loss}, gradient norm {done.norm}"
        facts = {"epoch": epoch, "window": window, "loss": str(done.loss), "batch": batch.name}
        self.journal.write("nonfinite", step=steps, **facts, policy=training.nonfinite)
        watch.skipped_in_a_row += 1
        if training.nonfinite == "skip" and watch.skipped_in_a_row <= SKIPS_IN_A_ROW:
            self.display.say(f"left out {where}; its minibatch is in {batch}; the state begins anew")
            self.learner.forget()  # the state that it left may not be finite either
        elif training.nonfinite == "rollback" and watch.rollbacks < ROLLBACKS:
            self._roll_back(where)
        else:
            kept = f"{self.folder / 'best'} is kept" if self.best else "there was no validation yet"
            raise ThroughtimeError(
                f"training diverged at {where}; its minibatch is in {batch}; {kept}; "
                "lower training.learning_rate or gradient.clip_norm, or set training.nonfinite = 'skip' or 'rollback'"
            )

    def _roll_back(self, where: str) -> None:
        rollbacks = self.watch.rollbacks + 1
        scale = self.learner.counts.rate_scale * self.recipe.training.rollback_rate
        newest = self.checkpoints.newest().checkpoint if self.ranks.leads else None
        found = share(newest, self.ranks, self.learner.keep)
        if found is None:
            raise ThroughtimeError(f"training diverged at {where}; {self.checkpoints.folder} has nothing to go back to")
        self._restore(found)
        self.watch.rollbacks, self.learner.counts.rate_scale = rollbacks, scale
        self.display.say(f"went back from {where} to step {found.step}, on with {scale:g} of the learning rate")

    def _write_out(self, at: BatchIndex) -> Path:
        """A minibatch in a file of its own: what each lane read."""
        path = self.folder / f"nonfinite-{self.learner.counts.steps}.json"
        if self.ranks.leads:
            batch, decode = self.learner.source.of_all_lanes()[at], self.dataset.tokenizer.decode
            lanes = [
                {"ids": ids, "text": decode(ids), "reset": reset}
                for ids, reset in zip(batch.inputs.T.tolist(), batch.reset_TB.T.tolist(), strict=True)
            ]
            replace_file(path, (to_json({"epoch": at.epoch, "window": at.batch, "lanes": lanes}) + "\n").encode())
        return path

    def _moment(self, progress: float) -> Moment:
        steps = self.learner.counts.steps
        return Moment(
            step=steps,
            progress=progress,
            nats_per_token=self.recent.loss,
            tokens_per_second=self.recent.tokens_per_second,
            seconds=self.seconds,
            seconds_left=self.budget.seconds_left(steps, self.seconds),
        )

    def _enter(self) -> None:
        counts = self.learner.counts
        self.journal.write(
            "train",
            step=counts.steps,
            epoch=self.learner.position.at.epoch,
            tokens=counts.tokens,
            nats_per_token=self.recent.loss,
            gradient_norm=self.recent.norm,
            clipped_share=self.recent.clipped,
            learning_rate=counts.rate,
            seconds=round(self.seconds, 3),
            tokens_per_second=round(self.recent.tokens_per_second),
        )
        self.recent = Recent(self.recent.loss, self.recent.tokens_per_second)

    def _make_schedule(self) -> Schedule:
        """The schedule of validations, on from what the watch remembers of them."""
        training, train, valid = self.recipe.training, self.dataset.train, self.dataset.valid
        parameters = count_parameters(self.model)
        load = Load(0, 0, parameters) if valid is None else Load(len(valid) - 1, tokens_of_estimate(valid), parameters)
        if self.budget.minutes is not None:
            return ScheduleByClock(training.validations, load, self.watch.validations, 60 * self.budget.minutes)
        assert self.budget.steps is not None
        epochs = self.budget.steps / self.learner.truncation.updates(self.learner.source, 1.0)
        return ScheduleBySteps(training.validations, load, self.watch.validations, epochs * len(train))

    def _validate(self) -> None:
        """Measure, keep the model if it is the best so far, show a sample. What learns is not touched."""
        began = time.perf_counter()
        watch, counts = self.watch, self.learner.counts
        self.schedule.plan(self.seconds, counts.tokens)
        facts: dict[str, Any] = {"step": counts.steps, "tokens": counts.tokens}
        model = self.learner.whole_model()
        finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        improved = finite if self.dataset.valid is None else self._measure_valid(model, self.dataset.valid, facts)
        watch.since_best = 0 if improved else watch.since_best + 1
        if improved:
            self.best, self.best_facts = self.learner.weights(), facts
        if not finite:
            self.display.say(f"step {counts.steps:,}: the weights are not finite; this model is not kept")
        elif self.ranks.leads:
            for name in ("best", "last") if improved else ("last",):
                self._save(name, model, facts)
            if self.recipe.training.sample_tokens:
                self._write_sample(model)
        [seconds] = self.ranks.add_up([], [time.perf_counter() - began if self.ranks.leads else 0.0])
        self.schedule.add(self.seconds, seconds)

    def _measure_valid(self, model: SequenceModel, valid: TokenIds, facts: dict[str, Any]) -> bool:
        """Estimate the figure of the validation text, which goes into the facts; whether it is the best so far.

        A figure that is not finite never is: nothing could be better than it afterwards.
        """
        watch = self.watch
        found = estimate(self._predictor(model), valid, watch.validations.tokens or None)
        loss = found.nats_per_token
        improved = math.isfinite(loss) and (watch.best is None or loss < watch.best or not math.isfinite(watch.best))
        watch.best = loss if improved else watch.best
        facts["valid"] = found.as_dict()
        self.journal.write("valid", **facts, seconds=round(self.seconds, 3), best=improved)
        remark = ", the best so far" if improved else "" if math.isfinite(loss) else ", which is never the best"
        self.display.say(
            f"step {facts['step']:,}: valid {loss:.4f} nats/token, perplexity {found.perplexity:.3f} per "
            f"{self.dataset.tokenizer.kind}, {found.bits_per_byte:.4f} bits per byte{remark}"
        )
        return improved

    def _predictor(self, model: SequenceModel) -> OverRanks:
        return OverRanks(InTraining(model), self.ranks)

    def _save(self, name: str, model: Any, facts: dict[str, Any], weights: Any = None) -> None:
        """Write a model folder; with the digests by which the texts are known again when the model is used."""
        facts = {**facts, "texts": identity(self.dataset)["text"]}
        save_model(
            self.folder / name, model, facts, weights, self.dataset.tokenizer, separator=self.recipe.text.separator
        )

    def _write_sample(self, model: Any) -> None:
        training = self.recipe.training
        try:
            pieces = generate(
                model,
                self.dataset.tokenizer,
                tokens=training.sample_tokens,
                separator=self.recipe.text.separator,
                temperature=SAMPLE_TEMPERATURE,
                seed=training.seed,
            )
            self.watch.sample = "".join(pieces)
        except ThroughtimeError as error:
            self.display.say(f"no sample: {error}")
            return
        self.journal.write("sample", step=self.learner.counts.steps, text=self.watch.sample)
        self.display.say(quoted(self.watch.sample))

    def _end(self, ending: str) -> Result:
        """Measure the best model, and write what sums the run up."""
        self._check_folder()
        if not self.best:
            raise ThroughtimeError(
                f"training diverged: none of the validations of {self.folder} gave a finite loss, so there is no best "
                "model; lower training.learning_rate or gradient.clip_norm"
            )
        self.model.load_state_dict(self.best)
        splits, steps = self.dataset.splits(), self.learner.counts.steps
        split = next((name for name in ("test", "valid") if name in splits), None)
        found = evaluate(self._predictor(self.learner.whole_model()), splits[split]) if split else None
        figures = found.as_dict() if found else {}
        self.journal.write("end", ending=ending, step=steps, seconds=round(self.seconds, 3), split=split, **figures)
        if self.ranks.leads:
            entries = self.journal.entries()
            for note in entries.notes:
                self.display.say(note)
            draw_curve(entries, self.folder / "curve.svg")
            write_card(self.folder / CARD, self.recipe, self.dataset, entries)
        kind = self.dataset.tokenizer.kind
        return Result(self.folder, kind, steps, self.seconds, ending, split, found, self.watch.sample)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small for a normal float32 become 0: they change nothing and cost a hundred times the time."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
