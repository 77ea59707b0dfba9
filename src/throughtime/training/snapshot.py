"""All that a training has to keep to go on as if nothing had happened, taken apart and put together again.

Arrays: weights, the best weights so far, the optimiser's means, the state carried between windows and the generator of
noise. Facts: counts, the place in the text, norms, and the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from throughtime.cells.state import State, from_arrays, to_arrays
from throughtime.gradient.truncation import Behind, Position
from throughtime.streams.partition import Place

Arrays = dict[str, Tensor]


@dataclass
class Counts:
    """Where a training stands, in numbers."""

    steps: int = 0
    """Optimiser steps, those left out included."""
    tokens: int = 0
    """Tokens predicted."""
    rate: float = 0.0
    """Learning rate of the last step."""
    rate_scale: float = 1.0
    """What the schedule's rate is multiplied by; less than 1 after a rollback."""
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    since_best: int = 0
    """Validations since the best one."""
    best: float | None = None
    """Nats per token of the best validation."""
    sample: str = ""
    """The last text written."""


class Best(NamedTuple):
    """The best model so far."""

    facts: Mapping[str, Any]
    """What is said of it in its folder."""
    weights: Arrays


def position_arrays(position: Position) -> Arrays:
    """The states and drawn cuts that a position holds."""
    arrays = to_arrays(position.state)
    for index, behind in enumerate(position.behind):
        arrays |= to_arrays(behind.state, _behind(index, "state"))
        if behind.flow_TB is not None:
            arrays[_behind(index, "flow_TB")] = behind.flow_TB
    return arrays


def position_facts(position: Position) -> dict[str, Any]:
    """The places that a position holds."""
    return {"place": [*position.place], "behind": [[*behind.place] for behind in position.behind]}


def position_of(arrays: Mapping[str, Tensor], facts: Mapping[str, Any], initial: State) -> Position:
    """The position that was taken apart; `initial` is a state of the same lanes.

    Raises:
        ValueError: where an array is missing or has another shape.
    """

    def state(prefix: str) -> State:
        return from_arrays(
            {name: array for name, array in arrays.items() if name.startswith(prefix + ".")}, initial, prefix
        )

    behind = tuple(
        Behind(Place(*place), state(_behind(index, "state")), arrays.get(_behind(index, "flow_TB")))
        for index, place in enumerate(facts["behind"])
    )
    return Position(Place(*facts["place"]), state("state"), behind)


def optimiser_arrays(optimiser: torch.optim.Optimizer) -> Arrays:
    """What an optimiser remembers of each parameter, by the parameter's number."""
    remembered = optimiser.state_dict()["state"]
    return {f"{number}.{name}": array for number, entry in remembered.items() for name, array in entry.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, arrays: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what it remembered."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, array in arrays.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = array
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _behind(index: int, name: str) -> str:
    return f"behind.{index}.{name}"
