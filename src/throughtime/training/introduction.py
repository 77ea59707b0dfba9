"""What a training says before its first step."""

from __future__ import annotations

from throughtime.models.base import SequenceModel, count_parameters
from throughtime.recipe import Recipe
from throughtime.streams.batches import BatchSource
from throughtime.tasks.base import Data
from throughtime.training.settings import BUDGETS


def introduction(recipe: Recipe, data: Data, source: BatchSource, model: SequenceModel) -> list[str]:
    """A training in lines: what is odd about the text, its tokens, the model, the windows."""
    settings = recipe.model
    budget = next(f"{getattr(recipe.training, unit):g} {unit}" for unit in BUDGETS if getattr(recipe.training, unit))
    return [
        *data.notes,
        *data.describe(),
        f"model: {settings.layers} x {settings.cell} of {settings.units} units, "
        f"{count_parameters(model):,} parameters, run by {model.engine} ({model.engine_reason})",
        f"an epoch is {source.batches_in(0):,} windows ({recipe.streams.partition}) of {source.lanes} lanes x "
        f"{source.window} tokens; truncation {recipe.gradient.truncation}; the budget is {budget}",
    ]
