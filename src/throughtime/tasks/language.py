"""The language task: a text in, the probability of each next token out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from throughtime.errors import ThroughtimeError
from throughtime.folder import TOKENIZER, Description
from throughtime.objective.evaluation import WARM_UP, Predictor, estimate, evaluate, is_exact, tokens_of_estimate
from throughtime.objective.measure import Measure
from throughtime.objective.report import LossUnit
from throughtime.recipe import Recipe
from throughtime.runtime.model import Model as RuntimeModel
from throughtime.runtime.network import Network
from throughtime.streams.batch import Batch
from throughtime.streams.batches import BatchSource, Lengths, make_stream_batches
from throughtime.tasks import files
from throughtime.tasks.base import Data, Task
from throughtime.text.dataset import Dataset, describe, prepare
from throughtime.untrusted import printable

SAMPLE_TEMPERATURE = 0.8
ESTIMATED = (
    f"validation during training is an estimate, from lanes that begin with a warm-up of {WARM_UP} tokens; the final "
    "figure is exact"
)


@final
class LanguageData(Data):
    """A tokenised text.

    Args:
        recipe: the settings.
        dataset: the tokeniser and the ids of each split.
    """

    task: ClassVar[str] = "language"
    loss_unit: ClassVar[LossUnit] = LossUnit("nats", "token")

    def __init__(self, recipe: Recipe, dataset: Dataset):
        self.recipe, self.dataset, self.tokenizer = recipe, dataset, dataset.tokenizer
        self._ids = dataset.splits()
        self.notes, self.splits, self.train_size = dataset.notes, tuple(self._ids), len(dataset.train)

    def sizes(self) -> Mapping[str, int]:
        return {"vocabulary_size": self.tokenizer.vocabulary_size}

    def fingerprints(self) -> dict[str, Any]:
        return {
            "text": {name: ids.facts.text for name, ids in self._ids.items()},
            "tokeniser": self.tokenizer.digest,
        }

    def files(self) -> Mapping[str, bytes]:
        return {TOKENIZER: self.tokenizer.to_json().encode()}

    def description(self) -> Description:
        return Description(
            self.recipe.model,
            self.tokenizer.vocabulary_size,
            self.tokenizer.fingerprint,
            self.recipe.text.separator,
        )

    def batches(self, lengths: Lengths | None = None, own: range | None = None) -> BatchSource:
        recipe = self.recipe
        return make_stream_batches(self.dataset.train, recipe.streams, recipe.training.seed, lengths, own)

    def describe(self) -> list[str]:
        valid = self.dataset.valid
        return [
            f"text: {printable(', '.join(self.sources()))}",
            f"vocabulary: {self.headline()}",
            *self.describe_splits(),
            *([] if valid is None or is_exact(valid) else [ESTIMATED]),
        ]

    def describe_splits(self) -> list[str]:
        return [describe(name, self.tokenizer, ids) for name, ids in self._ids.items()]

    def headline(self) -> str:
        return f"{self.tokenizer.vocabulary_size:,} {self.tokenizer.kind} tokens"

    def sources(self) -> Sequence[str]:
        return self.recipe.text.sources

    def validation_load(self) -> tuple[int, int]:
        valid = self.dataset.valid
        return (0, 0) if valid is None else (len(valid) - 1, tokens_of_estimate(valid))

    def estimate(self, predictor: Predictor, most: int | None = None) -> Measure:
        return estimate(predictor, self._ids["valid"], most)._replace(kind=self.tokenizer.kind)

    def evaluate(self, predictor: Predictor, split: str) -> Measure:
        return evaluate(predictor, self._ids[split])._replace(kind=self.tokenizer.kind)

    def preview(self, network: Network) -> str:
        recipe = self.recipe
        writer = RuntimeModel(recipe.model, network, self.tokenizer, "", separator=recipe.text.separator)
        tokens, seed = recipe.training.sample_tokens, recipe.training.seed
        return "".join(writer.generate("", tokens, temperature=SAMPLE_TEMPERATURE, seed=seed))

    def show(self, batch: Batch) -> list[dict[str, Any]]:
        return [
            {"ids": ids, "text": self.tokenizer.decode(ids), "reset": reset}
            for ids, reset in zip(batch.inputs.T.tolist(), batch.reset_TB.T.tolist(), strict=True)
        ]

    def figures(self, ended: Mapping[str, Any]) -> list[tuple[str, str]]:
        formats = {
            "nats_per_token": ("nats per token", ".4f"),
            "perplexity": (f"perplexity per {self.tokenizer.kind} token", ".4f"),
            "bits_per_byte": ("bits per byte of the text", ".4f"),
            "unknown_share": ("unknown tokens", ".3%"),
        }
        values = {name: ended.get(name) for name in formats}
        return [
            ("tokens predicted", f"{ended.get('tokens', 0):,}"),
            *(
                (title, "not finite" if values[name] is None else format(values[name], form))
                for name, (title, form) in formats.items()
            ),
        ]


@final
class LanguageTask(Task):
    """Language modelling: `[text]` of the recipe says which text is read, and what a token is."""

    name: ClassVar[str] = LanguageData.task

    def read(self) -> LanguageData:
        return LanguageData(self.recipe, prepare(self.recipe.text))

    def read_again(self, folder: Path) -> LanguageData:
        try:
            return self.read()
        except ThroughtimeError as error:
            if files.all_there(self._names()):
                raise
            raise type(error)(
                f"{error}; where the text has moved, name it anew: throughtime train TEXT --out {folder} --resume"
            ) from None

    def run_name(self) -> str:
        first = self.recipe.text.sources[0] if self.recipe.text.sources else ""
        stem = Path(first.replace("*", "").replace(":", "-")).stem.strip("-") or "text"
        return f"{stem}-{self.recipe.text.tokens}"

    def settled(self) -> Recipe:
        moved = {split: files.settled_names(names) for split, names in self._splits().items()}
        return self.recipe.model_copy(update={"text": self.recipe.text.model_copy(update=moved)})

    def refuse_streams(self, processes: int) -> None:
        files.refuse_streams(self._names(), processes)

    def await_input(self, changes: Mapping[str, Any], folder: Path) -> None:
        files.await_input(self._splits(), changes.get("text", {}), folder)

    def _splits(self) -> dict[str, tuple[str, ...]]:
        text = self.recipe.text
        return {"sources": text.sources, "valid": text.valid, "test": text.test}

    def _names(self) -> list[str]:
        return [name for names in self._splits().values() for name in names]
