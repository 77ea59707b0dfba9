"""What a training says before its first step."""

from __future__ import annotations

from throughtime.models.base import SequenceModel, count_parameters
from throughtime.objective.evaluation import WARM_UP, is_exact
from throughtime.recipe import BUDGETS, Recipe
from throughtime.streams.batches import BatchSource
from throughtime.text.dataset import Dataset, describe
from throughtime.untrusted import printable

ESTIMATED = (
    f"validation during training is an estimate, from lanes that begin with a warm-up of {WARM_UP} tokens; the final "
    "figure is exact"
)


def introduction(recipe: Recipe, dataset: Dataset, source: BatchSource, model: SequenceModel) -> list[str]:
    """A training in lines: what is odd about the text, its tokens, the model, the windows."""
    settings, tokenizer = recipe.model, dataset.tokenizer
    budget = next(f"{getattr(recipe.training, unit):g} {unit}" for unit in BUDGETS if getattr(recipe.training, unit))
    return [
        *dataset.notes,
        f"text: {printable(', '.join(recipe.text.sources))}",
        f"vocabulary: {tokenizer.vocabulary_size:,} {tokenizer.kind} tokens",
        *(describe(name, tokenizer, ids) for name, ids in dataset.splits().items()),
        f"model: {settings.layers} x {settings.cell} of {settings.hidden_size} units, "
        f"{count_parameters(model):,} parameters, run by {model.engine} ({model.engine_reason})",
        f"an epoch is {source.batches_in(0):,} windows ({recipe.streams.partition}) of {source.lanes} lanes x "
        f"{source.window} tokens; truncation {recipe.gradient.truncation}; the budget is {budget}",
        *([] if dataset.valid is None or is_exact(dataset.valid) else [ESTIMATED]),
    ]
