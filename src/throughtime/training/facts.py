"""The facts of a checkpoint: what facts.json has to hold, checked before anything is made of it.

Whoever wrote the file may have been another version, or somebody who means ill. Numbers that are not finite are null in
it (NaN in those that 0.1.0 wrote); only the loss before the first step is such a number.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from throughtime import recipe as recipes
from throughtime.errors import ThroughtimeError
from throughtime.recipe import Recipe
from throughtime.settings import Finite, NonNegative, Whole
from throughtime.training.learner import Counts
from throughtime.training.watch import Watch
from throughtime.untrusted import first_finding

FORMAT = 1
Pair = Annotated[tuple[Whole, Whole], Field(strict=False)]
"""A place in the text: epoch and window."""
Weighted = Annotated[tuple[Finite, Whole], Field(strict=False)]
"""A mean, and over how many tokens."""
Before = Annotated[tuple[Finite | None, NonNegative], Field(strict=False)]
RecentFacts = Annotated[tuple[Before, list[Weighted], list[Finite], Whole, NonNegative], Field(strict=False)]
"""What `journal.Recent.as_list` gives."""


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LearnerFacts(_Checked):
    """What `Learner.taken_apart` gives beside the arrays."""

    counts: Counts
    place: Pair
    behind: list[Pair]
    norms: list[NonNegative]


class Facts(_Checked):
    """All of facts.json. A later format has another number, and a model of its own."""

    format: Literal[1] = 1
    recipe: dict[str, Any]
    text: dict[str, str]
    """Digest of each split."""
    tokeniser: str
    """Its digest."""
    machine: dict[str, str | int]
    learner: LearnerFacts
    watch: Watch
    recent: RecentFacts
    best: dict[str, Any]
    """What model.json tells of how the best weights came about."""
    seconds: NonNegative
    journal: str


def accepted(step: int, facts: Any) -> dict[str, Any]:
    """The facts of a checkpoint that was written after so many steps, checked.

    Raises:
        ThroughtimeError: where something is missing, unknown, of another type or out of range.
    """
    try:
        found = Facts.model_validate(facts).model_dump()
    except ValidationError as error:
        raise ThroughtimeError(f"{first_finding(error, 'facts')}; was it written by another version?") from None
    if found["learner"]["counts"]["steps"] != step:
        raise ThroughtimeError(f"learner.counts.steps should be {step}, as the manifest has it")
    recipe_of(found)
    (loss, speed), *others = found["recent"]
    return {**found, "recent": [(math.nan if loss is None else loss, speed), *others]}


def recipe_of(facts: dict[str, Any]) -> Recipe:
    """The recipe in the facts of a checkpoint.

    Raises:
        SettingError: where it has a setting that is unknown or wrong.
    """
    return recipes.build(facts["recipe"])
