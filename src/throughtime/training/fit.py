"""Whether a checkpoint fits the learner that is to go on from it: the names, types and shapes of its arrays, the places
in the text. Its files are as they were written when this is asked; what was written may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from throughtime.cells.state import to_arrays
from throughtime.errors import ThroughtimeError
from throughtime.streams.batches import BatchIndex
from throughtime.training.checkpoint import Checkpoint
from throughtime.training.learner import Learner
from throughtime.training.optimizer import Arrays


def check_fit(found: Checkpoint, learner: Learner) -> None:
    """Hold the arrays and places of a checkpoint against the learner's.

    Raises:
        ThroughtimeError: where one is missing, unknown, of another type or shape, or not finite in a model; or a place
            is not in the text.
    """
    facts = found.facts["learner"]
    try:
        _check_places(learner, facts)
        parts = {part: dict(found.arrays.get(part, {})) for part in ("model", "best", "optimiser", "position", "noise")}
        for part in found.arrays.keys() ^ parts.keys():
            raise ThroughtimeError(f"{'lacks' if part in parts else 'has an unknown'} {part}.safetensors")
        weights = {name: _like(array) for name, array in learner.model.state_dict().items()}
        _check_arrays("model", parts["model"], weights)
        _check_arrays("best", parts["best"], weights if parts["best"] else {})
        _check_arrays("optimiser", parts["optimiser"], learner.optimizer.expected(parts["optimiser"]))
        _check_arrays("position", parts["position"], _position(learner, facts))
        noise = learner.noise.get_state()
        _check_arrays("noise", parts["noise"], {str(rank): noise for rank in range(max(1, len(parts["noise"])))})
        _check_generators(parts["noise"])
        for part in ("model", "best"):
            for name, array in parts[part].items():
                if not bool(array.isfinite().all()):
                    raise ThroughtimeError(f"holds values that are not finite in {name} of {part}.safetensors")
    except ThroughtimeError as error:
        raise ThroughtimeError(f"the checkpoint {found.folder} does not fit this run: it {error}") from None


def _check_arrays(part: str, arrays: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name in sorted(arrays.keys() ^ wanted.keys()):
        raise ThroughtimeError(
            f"{'lacks' if name in wanted else 'has an unknown'} array {name!r} in {part}.safetensors"
        )
    for name, array in arrays.items():
        like = wanted[name]
        if (array.dtype, array.shape) != (like.dtype, like.shape):
            raise ThroughtimeError(
                f"has {array.dtype} of shape {list(array.shape)} as {name!r} in {part}.safetensors, not "
                f"{like.dtype} of shape {list(like.shape)}"
            )


def _check_generators(states: Mapping[str, Tensor]) -> None:
    for name, state in states.items():
        try:
            torch.Generator().set_state(state)
        except RuntimeError as error:
            raise ThroughtimeError(f"has no state of a generator as {name!r} in noise.safetensors: {error}") from None


def _position(learner: Learner, facts: Mapping[str, Any]) -> Arrays:
    source, drawn = learner.source, learner.recipe.gradient.truncation == "random"
    state = learner.model.initial_state(source.lanes)
    wanted = to_arrays(state)
    for index in range(len(facts["behind"])):
        wanted |= to_arrays(state, f"behind.{index}.state")
        if drawn:
            wanted[f"behind.{index}.flow_TB"] = torch.empty(source.window, source.lanes)
    return wanted


def _check_places(learner: Learner, facts: Mapping[str, Any]) -> None:
    at, behind = BatchIndex(*facts["place"]), [BatchIndex(*told) for told in facts["behind"]]
    if at.batch >= learner.source.batches_in(at.epoch):
        raise ThroughtimeError(f"is at window {at.batch:,} of epoch {at.epoch:,}, which has fewer")
    first = at.batch - len(behind)
    if first < 0 or behind != [BatchIndex(at.epoch, first + index) for index in range(len(behind))]:
        raise ThroughtimeError("names windows behind its place that do not lead up to it")


def _like(array: Tensor) -> Tensor:
    """The type and the shape alone; the array may be dealt to several processes."""
    return torch.empty(array.shape, dtype=array.dtype, device="meta")
