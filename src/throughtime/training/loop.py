"""The training loop: windows in, a run folder out. It knows no cell by name."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import torch

from throughtime import folder as folders
from throughtime import recipe as recipes
from throughtime.errors import ThroughtimeError
from throughtime.gradient.clipping import clip
from throughtime.gradient.truncation import truncation
from throughtime.machine import usable_threads
from throughtime.models.decoding import generate
from throughtime.models.language import LanguageModel
from throughtime.objective.evaluation import evaluate
from throughtime.objective.measure import Measure
from throughtime.recipe import BUDGETS, Recipe
from throughtime.streams.partition import Partition, Place, partition
from throughtime.text.dataset import Dataset, describe, prepare
from throughtime.training.card import write_card
from throughtime.training.curve import draw_curve
from throughtime.training.display import Display, Moment, Silence, quoted
from throughtime.training.evaluation import InTraining
from throughtime.training.interruption import interruption
from throughtime.training.journal import Journal, Recent
from throughtime.training.optimiser import Budget, learning_rate, optimiser
from throughtime.training.run import free_folder, load_model, save_model, settled

ENTRIES = 100
"""Lines on the training loss in the journal, evenly spread over the budget."""
SAMPLE_TEMPERATURE = 0.8
SKIPS_IN_A_ROW = 50


class Result(NamedTuple):
    """How a training ended."""

    folder: Path
    """The run folder."""
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


def train(
    recipe: Recipe | Mapping[str, Any] | str, out: str | Path | None = None, display: Display | None = None
) -> Result:
    """Train a model as a recipe says.

    Args:
        recipe: a Recipe, a tree of settings, the name of a recipe, or a TOML file.
        out: the run folder, which must not hold anything yet; None: a new one under runs/.
        display: shows how it goes; None: nothing does.

    PyTorch goes on with the recipe's number of threads afterwards.

    Raises:
        ThroughtimeError: where a setting is wrong, a text cannot be read, or the loss is no longer finite.
    """
    if isinstance(recipe, str):
        recipe = recipes.read(recipe)
    if not isinstance(recipe, Recipe):
        recipe = recipes.build(recipe)
    threads = usable_threads()
    torch.set_num_threads(min(recipe.training.threads or threads, threads))
    folder = free_folder(out, recipe.text)
    dataset = prepare(recipe.text)
    with closing(display or Silence()) as shown:
        return Trainer(settled(recipe), dataset, folder, shown).run()


def dry_run(recipe: Recipe) -> list[str]:
    """What `train` would say first. The text is read and tokenised, the model built, nothing trained or written."""
    dataset = prepare(recipe.text)
    cut = partition(dataset.train, recipe.streams, recipe.training.seed)
    return introduction(recipe, dataset, cut, LanguageModel(recipe.model, dataset.tokenizer.vocabulary_size))


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
        f"an epoch is {cut.windows_per_epoch:,} windows ({recipe.streams.partition}) of {cut.lanes} lanes x "
        f"{cut.window} tokens; the budget is {budget}",
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


@final
class Trainer:
    """One training, from the first window to the card."""

    def __init__(self, recipe: Recipe, dataset: Dataset, folder: Path, display: Display):
        self.recipe, self.dataset, self.folder, self.display = recipe, dataset, folder, display
        seed = recipe.training.seed
        self.partition = partition(dataset.train, recipe.streams, seed)
        self.model = LanguageModel(recipe.model, dataset.tokenizer.vocabulary_size, torch.Generator().manual_seed(seed))
        self.parameters = list(self.model.parameters())
        self.optimiser = optimiser(self.parameters, recipe.training)
        self.truncation = truncation(recipe.gradient)
        self.noise = torch.Generator().manual_seed(seed + 1)
        self.state = self.model.initial_state(recipe.streams.lanes)
        self.place, self.steps, self.tokens, self.skipped_in_a_row = Place(), 0, 0, 0
        self.recent = Recent()
        self.validations = self.since_best = 0
        self.best = math.inf
        self.sample = ""
        self.journal = Journal(self.folder / folders.JOURNAL)
        self.budget = Budget.of(recipe.training, self.partition.windows_per_epoch)

    def run(self) -> Result:
        training = self.recipe.training
        entries = 0
        ending = None
        with interruption(self.display) as interrupted, flushed_denormals():
            self._begin()
            while ending is None:
                self._step()
                progress = self.budget.progress(self.steps)
                if interrupted():
                    ending = "interrupted"
                elif progress >= 1:
                    ending = "budget"
                self.display.show(self._moment(progress))
                if ending or int(progress * ENTRIES) > entries:
                    entries = int(progress * ENTRIES)
                    self._enter()
                if ending or int(progress * training.validations) > self.validations:
                    self._validate(int(progress * training.validations))
                    if training.patience and self.since_best >= training.patience:
                        ending = ending or "patience"
        return self._end(ending)

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / folders.RECIPE).write_text(recipes.to_toml(self.recipe), "utf-8")
        (self.folder / folders.TOKENIZER).write_text(self.dataset.tokenizer.to_json(), "utf-8")
        lines = introduction(self.recipe, self.dataset, self.partition, self.model)
        for line in lines:
            self.display.say(line)
        self.journal.write(
            "begin",
            parameters=count_parameters(self.model),
            engine=self.model.engine,
            engine_reason=self.model.engine_reason,
            threads=torch.get_num_threads(),
            lines=lines,
        )

    def _step(self) -> None:
        """One window: forward, back through time, update; the state is carried on."""
        began = time.perf_counter()
        place, window = self.place, self.partition[self.place]
        rate = learning_rate(self.recipe.training, self.budget.progress(self.steps))
        fresh_TB = torch.from_numpy(window.fresh_TB) if window.fresh_TB.any() else None
        nats_TB, state = self.model.nats(
            torch.from_numpy(window.inputs_TB),
            torch.from_numpy(window.targets_TB),
            self.state,
            fresh_TB,
            self.truncation.flow(window),
            self.noise,
        )
        loss = nats_TB.mean()
        loss.backward()
        norm = clip(self.parameters, self.recipe.gradient)
        self.steps += 1
        self.tokens += nats_TB.numel()
        self.place = self.partition.after(place)
        if math.isfinite(loss.item()) and math.isfinite(norm):
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
            self.state = self.truncation.carry(state)
            clipped = 0 < self.recipe.gradient.clip_norm < norm
            self.recent.add(loss.item(), norm, clipped, time.perf_counter() - began)
            self.skipped_in_a_row = 0
        else:
            self._skip(place, loss.item(), norm)
        self.rate = rate
        self.optimiser.zero_grad()

    def _skip(self, place: Place, loss: float, norm: float) -> None:
        """Leave a minibatch out, or stop, as the recipe says. Its state is not carried: it may not be finite either."""
        self.journal.write("nonfinite", step=self.steps, epoch=place.epoch, window=place.window, loss=str(loss))
        where = f"step {self.steps} (epoch {place.epoch}, window {place.window}): loss {loss}, gradient norm {norm}"
        self.skipped_in_a_row += 1
        if self.recipe.training.nonfinite == "stop" or self.skipped_in_a_row > SKIPS_IN_A_ROW:
            best = self.folder / "best"
            kept = f"{best} is kept" if best.exists() else "there was no validation yet"
            raise ThroughtimeError(
                f"the training went off at {where}; {kept}; "
                "lower training.learning_rate or gradient.clip_norm, or set training.nonfinite = 'skip'"
            )
        self.display.say(f"left out {where}; the state begins anew")
        self.state = self.model.initial_state(self.recipe.streams.lanes)

    def _moment(self, progress: float) -> Moment:
        seconds = self.budget.seconds
        return Moment(
            step=self.steps,
            progress=progress,
            nats_per_token=self.recent.loss,
            tokens_per_second=self.recent.pace * self.partition.lanes * self.partition.window,
            seconds=seconds,
            seconds_left=self.budget.seconds_left(self.steps),
        )

    def _enter(self) -> None:
        self.journal.write(
            "train",
            step=self.steps,
            epoch=self.place.epoch,
            tokens=self.tokens,
            nats_per_token=self.recent.loss,
            gradient_norm=self.recent.norm,
            clipped_share=self.recent.clipped,
            learning_rate=self.rate,
            seconds=round(self.budget.seconds, 3),
            tokens_per_second=round(self.recent.pace * self.partition.lanes * self.partition.window),
        )
        self.recent = Recent(self.recent.loss, self.recent.pace)

    def _validate(self, number: int) -> None:
        """Measure, keep the model if it is the best so far, show a sample. The training state is not touched."""
        self.validations = number
        facts: dict[str, Any] = {"step": self.steps, "tokens": self.tokens}
        improved = True
        if self.dataset.valid is not None:
            found = evaluate(InTraining(self.model), self.dataset.valid)
            improved = found.nats_per_token < self.best
            self.best = min(self.best, found.nats_per_token)
            facts["valid"] = found.as_dict()
            self.journal.write("valid", **facts, seconds=round(self.budget.seconds, 3), best=improved)
            self.display.say(
                f"step {self.steps:,}: valid {found.nats_per_token:.4f} nats/token, perplexity {found.perplexity:.3f} "
                f"per {self.dataset.tokenizer.kind}, {found.bits_per_byte:.4f} bits per byte"
                f"{', the best so far' if improved else ''}"
            )
        self.since_best = 0 if improved else self.since_best + 1
        if improved:
            save_model(self.folder / "best", self.model, facts)
        save_model(self.folder / "last", self.model, facts)
        if self.recipe.training.sample_tokens:
            self.sample = self._sample()
            self.journal.write("sample", step=self.steps, text=self.sample)
            self.display.say(quoted(self.sample))

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
        self.journal.write("end", ending=ending, step=self.steps, seconds=round(seconds, 3), split=split, **figures)
        draw_curve(self.journal, self.folder / "curve.svg")
        write_card(self.folder / "card.md", self.recipe, self.dataset, self.journal)
        return Result(self.folder, self.steps, seconds, ending, split, found, self.sample)
