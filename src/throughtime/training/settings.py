"""The settings of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from throughtime.settings import CHANGEABLE, Natural, NonNegative, Positive, Settings, Share, Whole

BUDGETS = ("steps", "epochs", "minutes")


class Training(Settings):
    """The loop: how long, how fast, how it is watched."""

    steps: Annotated[Natural | None, CHANGEABLE] = None
    """Budget in optimizer steps. One of `steps`, `epochs`, `minutes`."""
    epochs: Annotated[Positive | None, CHANGEABLE] = None
    """Budget in passes over the training text."""
    minutes: Annotated[Positive | None, CHANGEABLE] = None
    """Budget in minutes by the clock, validation included."""
    seed: Whole = 0
    """Seed of everything random."""
    learning_rate: Positive = 4e-3
    """Highest learning rate of AdamW."""
    warmup: Share = 0.02
    """Share of the budget in which the learning rate rises from 0."""
    final_rate: Share = 0.02
    """Learning rate at the end of the cosine, as a share of the highest."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of AdamW's mean of squared gradients."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay of matrices; biases have none."""
    validations: Annotated[Natural, CHANGEABLE] = 10
    """Validations, evenly spread over the budget; the last stands at its end."""
    patience: Annotated[Whole, CHANGEABLE] = 0
    """Stop after this many validations without a better one; 0: never."""
    sample_tokens: Annotated[Whole, CHANGEABLE] = 150
    """Tokens of sample text at each validation; 0: none."""
    nonfinite: Annotated[Literal["stop", "skip", "rollback"], CHANGEABLE] = "stop"
    """A loss or gradient that is not finite: `stop` ends the training, `skip` leaves the minibatch out, `rollback` goes
    back to the last checkpoint with a lower learning rate."""
    rollback_rate: Annotated[Annotated[float, Field(gt=0, lt=1)], CHANGEABLE] = 0.5
    """What a rollback multiplies the learning rate by."""
    checkpoint_every: Annotated[Whole, CHANGEABLE] = 0
    """Steps between checkpoints; 0: as the clock says."""
    checkpoint_minutes: Annotated[NonNegative, CHANGEABLE] = 2.0
    """Minutes between checkpoints; 0: as the steps say. There is one at the end in any case."""
    checkpoint_keep: Annotated[Natural, CHANGEABLE] = 2
    """The newest checkpoints that are kept."""
    checkpoint_keep_every: Annotated[Whole, CHANGEABLE] = 0
    """Of the older checkpoints each n-th is kept too; 0: none."""
    signs_every: Annotated[Whole, CHANGEABLE] = 500
    """Steps between looks at gradients and units, layer by layer, which the journal keeps; 0: none."""
    shard: Annotated[bool, CHANGEABLE] = False
    """Deal weights, gradients and means to the processes, for a model that outgrows a machine; one keeps all."""
    threads: Annotated[Whole, CHANGEABLE] = 0
    """Processor threads; 0: all that the process may use."""

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and all(values.get(budget) is None for budget in BUDGETS):
            return {**values, "minutes": 5.0}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [budget for budget in BUDGETS if getattr(self, budget) is not None]
        if len(given) > 1:
            raise ValueError(f"the budget must be one of steps, epochs or minutes, got {' and '.join(given)}")
        return self
