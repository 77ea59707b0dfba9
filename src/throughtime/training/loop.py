"""One training: windows in, a run folder out. It knows no cell by name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import torch

from throughtime import recipe as recipes
from throughtime.durable import replace_file
from throughtime.errors import TerminationError, ThroughtimeError
from throughtime.folder import RECIPE, TOKENIZER
from throughtime.gradient.clipping import Clipping
from throughtime.gradient.truncation import Position, Truncation, truncation
from throughtime.models.decoding import generate
from throughtime.models.language import LanguageModel
from throughtime.objective.evaluation import evaluate
from throughtime.objective.measure import Measure
from throughtime.recipe import BUDGETS, Recipe
from throughtime.streams.partition import Partition, Place, partition
from throughtime.text.dataset import Dataset, describe
from throughtime.training.card import write_card
from throughtime.training.checkpoint import Checkpoint
from throughtime.training.curve import draw_curve
from throughtime.training.display import Display, Moment, quoted
from throughtime.training.evaluation import InTraining
from throughtime.training.interruption import interruption
from throughtime.training.journal import Journal, Recent
from throughtime.training.optimiser import Budget, learning_rate, optimiser
from throughtime.training.resume import check, circumstances, store
from throughtime.training.run import load_model, save_model
from throughtime.training.snapshot import (
    Best,
    Counts,
    optimiser_arrays,
    position_arrays,
    position_facts,
    position_of,
    restore_optimiser,
)

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
    """One training, from the first window to the card."""

    def __init__(self, recipe: Recipe, dataset: Dataset, folder: Path, display: Display):
        self.recipe, self.dataset, self.folder, self.display = recipe, dataset, folder, display
        seed = recipe.training.seed
        self.truncation, self.partition = cutting(recipe, dataset)
        self.model = LanguageModel(recipe.model, dataset.tokenizer.vocabulary_size, torch.Generator().manual_seed(seed))
        self.parameters = list(self.model.parameters())
        self.optimiser = optimiser(self.parameters, recipe.training)
        self.clipping = Clipping(recipe.gradient)
        self.noise = torch.Generator().manual_seed(seed + 1)
        self.position = Position(Place(), self.model.initial_state(recipe.streams.lanes))
        self.counts, self.recent, self.best = Counts(), Recent(), Best({}, {})
        self.journal = Journal(self.folder / "journal.jsonl")
        self.budget = Budget.of(recipe.training, partial(self.truncation.updates, self.partition))
        self.checkpoints = store(folder, recipe)
        self.written_at = time.monotonic()

    def run(self, start: Checkpoint | None) -> Result:
        """Train until the budget is used up, from a checkpoint or from the beginning."""
        training = self.recipe.training
        ending = None
        with interruption(self.display) as wish, flushed_denormals():
            self._begin(start)
            before = self.budget.progress(self.counts.steps)
            while ending is None:
                self._step()
                progress = self.budget.progress(self.counts.steps)
                self.display.show(self._moment(progress))
                if int(progress * ENTRIES) > int(before * ENTRIES):
                    self._enter()
                validated = int(progress * training.validations) > int(before * training.validations)
                if validated:
                    self._validate()
                    ending = "patience" if 0 < training.patience <= self.counts.since_best else None
                before = progress
                ending = ending or ("budget" if progress >= 1 else wish())
                if ending or self._checkpoint_is_due():
                    self._write_checkpoint()
            self.checkpoints.close()
            if ending == "terminated":
                raise TerminationError(
                    f"terminated after step {self.counts.steps:,}; "
                    f"`throughtime train --out {self.folder} --resume` goes on"
                )
            if ending == "interrupted" and not validated:
                self._enter()
                self._validate()
        return self._end(ending)

    def _begin(self, start: Checkpoint | None) -> None:
        lines = introduction(self.recipe, self.dataset, self.partition, self.model)
        for line in lines:
            self.display.say(line)
        if start is not None:
            self._go_on(start)
        replace_file(self.folder / RECIPE, recipes.to_toml(self.recipe).encode())
        replace_file(self.folder / TOKENIZER, self.dataset.tokenizer.to_json().encode())
        if start is not None:
            return
        self.journal.rewrite("")
        self.journal.write(
            "begin",
            parameters=count_parameters(self.model),
            engine=self.model.engine,
            engine_reason=self.model.engine_reason,
            threads=torch.get_num_threads(),
            lines=lines,
        )
        if self.recipe.training.nonfinite == "rollback":
            self._write_checkpoint()

    def _go_on(self, start: Checkpoint) -> None:
        """Put everything back to where the checkpoint was written, in the folder too."""
        for note in check(self.folder, start.facts, circumstances(self.dataset)):
            self.display.say(note)
        self._restore(start)
        self.budget.before = start.facts["seconds"]
        if self.budget.progress(self.counts.steps) >= 1:
            raise ThroughtimeError(
                f"{self.folder} has used up its budget after {self.counts.steps:,} steps; "
                f"give it more to go on, such as --steps {2 * self.counts.steps}"
            )
        self.journal.rewrite(start.facts["journal"])
        if self.best.weights:
            save_model(self.folder / "best", self.model, self.best.facts, self.best.weights)

    def _restore(self, start: Checkpoint) -> None:
        arrays, facts = start.arrays, start.facts
        self.model.load_state_dict(arrays["model"])
        restore_optimiser(self.optimiser, arrays["optimiser"])
        self.noise.set_state(arrays["noise"]["noise"])
        initial = self.model.initial_state(self.partition.lanes)
        self.position = position_of(arrays["position"], facts["position"], initial)
        self.best = Best(facts["best"], arrays["best"])
        self.counts = Counts(**facts["counts"])
        self.clipping = Clipping(self.recipe.gradient, facts["norms"])
        self.recent = Recent.from_list(facts["recent"])

    def _checkpoint_is_due(self) -> bool:
        training = self.recipe.training
        if training.checkpoint_every and self.counts.steps % training.checkpoint_every == 0:
            return True
        return 0 < 60 * training.checkpoint_minutes <= time.monotonic() - self.written_at

    def _write_checkpoint(self) -> None:
        self.checkpoints.write(
            self.counts.steps,
            {
                "model": self.model.state_dict(),
                "optimiser": optimiser_arrays(self.optimiser),
                "position": position_arrays(self.position),
                "noise": {"noise": self.noise.get_state()},
                "best": self.best.weights,
            },
            {
                "recipe": self.recipe.model_dump(mode="json"),
                **circumstances(self.dataset),
                "counts": asdict(self.counts),
                "position": position_facts(self.position),
                "norms": list(self.clipping.norms),
                "recent": self.recent.as_list(),
                "best": self.best.facts,
                "seconds": self.budget.seconds,
                "journal": self.journal.text(),
            },
            best=self.counts.since_best == 0,
        )
        self.written_at = time.monotonic()

    def _step(self) -> None:
        """One update: forward, back through time; the state is carried on."""
        began = time.perf_counter()
        counts, here = self.counts, self.position
        progress = self.budget.progress(counts.steps)
        update = self.truncation.update(self.model, self.partition, here, self.noise, progress)
        norm, bound = self.clipping(self.parameters)
        counts.steps += 1
        counts.tokens += update.tokens
        counts.rate = learning_rate(self.recipe.training, progress) * counts.rate_scale * update.rate
        self.position = update.position
        if math.isfinite(update.loss) and math.isfinite(norm):
            for group in self.optimiser.param_groups:
                group["lr"] = counts.rate
            self.optimiser.step()
            self.recent.add(update.loss, update.tokens, norm, bound, time.perf_counter() - began)
            counts.skipped_in_a_row = 0
        else:
            self._refuse(here.place, update.loss, norm)
        self.optimiser.zero_grad()

    def _refuse(self, place: Place, loss: float, norm: float) -> None:
        """Stop, leave the minibatch out, or go back, as the recipe says."""
        training, counts = self.recipe.training, self.counts
        batch = self._write_out(place)
        where = f"step {counts.steps} (epoch {place.epoch}, window {place.window}): loss {loss}, gradient norm {norm}"
        facts = {"epoch": place.epoch, "window": place.window, "loss": str(loss), "batch": batch.name}
        self.journal.write("nonfinite", step=counts.steps, **facts, policy=training.nonfinite)
        counts.skipped_in_a_row += 1
        if training.nonfinite == "skip" and counts.skipped_in_a_row <= SKIPS_IN_A_ROW:
            self.display.say(f"left out {where}; its minibatch is in {batch}; the state begins anew")
            # The state that it left may not be finite either.
            self.position = Position(self.position.place, self.model.initial_state(self.partition.lanes))
        elif training.nonfinite == "rollback" and counts.rollbacks < ROLLBACKS:
            self._roll_back(where)
        else:
            best = self.folder / "best"
            kept = f"{best} is kept" if best.exists() else "there was no validation yet"
            raise ThroughtimeError(
                f"the training went off at {where}; its minibatch is in {batch}; {kept}; "
                "lower training.learning_rate or gradient.clip_norm, or set training.nonfinite = 'skip' or 'rollback'"
            )

    def _roll_back(self, where: str) -> None:
        rollbacks, scale = self.counts.rollbacks + 1, self.counts.rate_scale * self.recipe.training.rollback_rate
        found = self.checkpoints.newest().checkpoint
        if found is None:
            raise ThroughtimeError(
                f"the training went off at {where}; {self.checkpoints.folder} has nothing to go back to"
            )
        self._restore(found)
        self.counts.rollbacks, self.counts.rate_scale = rollbacks, scale
        self.display.say(f"went back from {where} to step {found.step}, on with {scale:g} of the learning rate")

    def _write_out(self, place: Place) -> Path:
        """A minibatch in a file of its own: what each lane read."""
        window, decode = self.partition[place], self.dataset.tokenizer.decode
        lanes = [
            {"ids": ids, "text": decode(ids), "fresh": fresh}
            for ids, fresh in zip(window.inputs_TB.T.tolist(), window.fresh_TB.T.tolist(), strict=True)
        ]
        path = self.folder / f"nonfinite-{self.counts.steps}.json"
        path.write_text(json.dumps({**place._asdict(), "lanes": lanes}, ensure_ascii=False) + "\n", "utf-8")
        return path

    def _moment(self, progress: float) -> Moment:
        seconds = self.budget.seconds
        return Moment(
            step=self.counts.steps,
            progress=progress,
            nats_per_token=self.recent.loss,
            tokens_per_second=self.recent.tokens_per_second,
            seconds=seconds,
            seconds_left=self.budget.seconds_left(self.counts.steps),
        )

    def _enter(self) -> None:
        self.journal.write(
            "train",
            step=self.counts.steps,
            epoch=self.position.place.epoch,
            tokens=self.counts.tokens,
            nats_per_token=self.recent.loss,
            gradient_norm=self.recent.norm,
            clipped_share=self.recent.clipped,
            learning_rate=self.counts.rate,
            seconds=round(self.budget.seconds, 3),
            tokens_per_second=round(self.recent.tokens_per_second),
        )
        self.recent = Recent(self.recent.loss, self.recent.tokens_per_second)

    def _validate(self) -> None:
        """Measure, keep the model if it is the best so far, show a sample. The training state is not touched."""
        counts = self.counts
        facts: dict[str, Any] = {"step": counts.steps, "tokens": counts.tokens}
        improved = True
        if self.dataset.valid is not None:
            found = evaluate(InTraining(self.model), self.dataset.valid)
            improved = counts.best is None or found.nats_per_token < counts.best
            counts.best = found.nats_per_token if improved else counts.best
            facts["valid"] = found.as_dict()
            self.journal.write("valid", **facts, seconds=round(self.budget.seconds, 3), best=improved)
            self.display.say(
                f"step {counts.steps:,}: valid {found.nats_per_token:.4f} nats/token, "
                f"perplexity {found.perplexity:.3f} per {self.dataset.tokenizer.kind}, "
                f"{found.bits_per_byte:.4f} bits per byte"
                f"{', the best so far' if improved else ''}"
            )
        counts.since_best = 0 if improved else counts.since_best + 1
        if improved:
            self.best = Best(facts, {name: array.clone() for name, array in self.model.state_dict().items()})
            save_model(self.folder / "best", self.model, facts)
        save_model(self.folder / "last", self.model, facts)
        if self.recipe.training.sample_tokens:
            counts.sample = self._sample()
            self.journal.write("sample", step=counts.steps, text=counts.sample)
            self.display.say(quoted(counts.sample))

    def _sample(self) -> str:
        training = self.recipe.training
        pieces = generate(
            self.model,
            self.dataset.tokenizer,
            tokens=training.sample_tokens,
            temperature=SAMPLE_TEMPERATURE,
            seed=training.seed,
        )
        return "".join(pieces)

    def _end(self, ending: str) -> Result:
        seconds = self.budget.seconds
        if not (self.folder / "best").exists():
            raise ThroughtimeError(f"no validation gave a finite loss; {self.folder / 'last'} holds the last model")
        best = load_model(self.folder / "best", self.dataset.tokenizer.vocabulary_size)
        split = next((name for name in ("test", "valid") if name in self.dataset.splits()), None)
        found = evaluate(InTraining(best), self.dataset.splits()[split]) if split else None
        figures = found.as_dict() if found else {}
        self.journal.write(
            "end", ending=ending, step=self.counts.steps, seconds=round(seconds, 3), split=split, **figures
        )
        draw_curve(self.journal, self.folder / "curve.svg")
        write_card(self.folder / "card.md", self.recipe, self.dataset, self.journal)
        return Result(
            self.folder,
            self.dataset.tokenizer.kind,
            self.counts.steps,
            seconds,
            ending,
            split,
            found,
            self.counts.sample,
        )


def cutting(recipe: Recipe, dataset: Dataset) -> tuple[Truncation, Partition]:
    """How a recipe cuts the way back through time, and the training text."""
    streams, seed = recipe.streams, recipe.training.seed
    way = truncation(recipe.gradient, streams.window, seed)
    return way, partition(dataset.train, streams, seed, way.lengths)


def introduction(recipe: Recipe, dataset: Dataset, cut: Partition, model: LanguageModel) -> list[str]:
    """A training in lines: what is odd about the text, its tokens, the model, the windows."""
    settings, tokenizer = recipe.model, dataset.tokenizer
    budget = next(f"{getattr(recipe.training, unit):g} {unit}" for unit in BUDGETS if getattr(recipe.training, unit))
    return [
        *dataset.notes,
        f"text: {', '.join(recipe.text.sources)}",
        f"vocabulary: {tokenizer.vocabulary_size:,} {tokenizer.kind} tokens",
        *(describe(name, tokenizer, ids) for name, ids in dataset.splits().items()),
        f"model: {settings.layers} x {settings.cell} of {settings.hidden_size} units, "
        f"{count_parameters(model):,} parameters, run by {model.engine} ({model.engine_reason})",
        f"an epoch is {cut.windows_in(0):,} windows ({recipe.streams.partition}) of {cut.lanes} lanes x "
        f"{cut.window} tokens; truncation {recipe.gradient.truncation}; the budget is {budget}",
    ]


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small for a normal float32 become 0: they change nothing and cost a hundred times the time."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def count_parameters(model: LanguageModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
