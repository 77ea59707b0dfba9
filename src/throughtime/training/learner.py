"""What learns: the model, its optimizer, and all that an update changes; taken apart and put together again.

Arrays: weights, the optimizer's moments, the state carried between windows, the generators of noise. Facts: counts, the
place in the text, norms. Of several processes each has its own lanes' states and its own noise; the rest is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from pydantic import ConfigDict
from torch import Tensor

from throughtime.cells.state import State, from_arrays, map_state, to_arrays
from throughtime.errors import SettingError
from throughtime.gradient.clipping import Clipping
from throughtime.gradient.truncation import Behind, Position, Truncation, make_truncation
from throughtime.machine import memory
from throughtime.models.base import SequenceModel, count_parameters, to_tensors
from throughtime.models.registry import make_model
from throughtime.recipe import Recipe
from throughtime.settings import NonNegative, Whole
from throughtime.streams.batches import BatchIndex, BatchSource
from throughtime.tasks.base import Data
from throughtime.training.budget import learning_rate
from throughtime.training.optimizer import Arrays, make_optimizer
from throughtime.training.ranks import Ranks, whole_model
from throughtime.training.signs import Signs, gradient_norms, signs

if TYPE_CHECKING:
    from throughtime.training.shards import Shards

FLOAT_BYTES = 4
HELD = 4
"""Arrays as large as the weights that a training holds: the weights, their gradients, and two means."""


@dataclass
class Counts:
    """Where a training stands, in numbers."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # how `training.facts` reads it
    steps: Whole = 0
    """Optimizer steps, those left out included."""
    tokens: Whole = 0
    """Tokens predicted."""
    rate: NonNegative = 0.0
    """Learning rate of the last step."""
    rate_scale: NonNegative = 1.0
    """What the schedule's rate is multiplied by; less than 1 after a rollback."""


class Step(NamedTuple):
    """An update that was made, or not."""

    at: BatchIndex
    """The batch that it read."""
    loss: float
    """Mean nats of the tokens predicted."""
    tokens: int
    norm: float
    """Of the gradient, before clipping."""
    bound: bool
    """Whether it was clipped."""
    told: list[float]
    """What was asked along, summed over all processes."""
    signs: list[Signs]
    """Of each layer, from the own lanes; empty where nobody wanted them."""

    @property
    def finite(self) -> bool:
        """Whether the weights were updated: loss and norm are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


@final
class Learner:
    """A model in training.

    Args:
        recipe: the settings.
        data: what is read.
        ranks: which process this is.

    Raises:
        ThroughtimeError: as `cut` and `check_model` do.
    """

    def __init__(self, recipe: Recipe, data: Data, ranks: Ranks):
        seed = recipe.training.seed
        self.recipe, self.ranks = recipe, ranks
        self.truncation, self.source = cut(recipe, data, ranks)
        check_model(recipe, data)
        self.model = make_model(data.task, recipe.model, data.sizes(), torch.Generator().manual_seed(seed))
        self.model.eval()  # `noise` says what is dropped; a pass without it, as `signs` makes, is meant
        self.shards = _shards(self.model, ranks) if recipe.training.shard and ranks.count > 1 else None
        self.parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(self.parameters, recipe.training)
        self.clipping = Clipping(recipe.gradient)
        self.noise = _noise(seed, ranks.rank)
        self.counts = Counts()
        self.position = Position(BatchIndex(), self._initial())

    def step(self, progress: float, asked: Sequence[float], watched: bool = False) -> Step:
        """One update: forward, back through time; the state is carried on.

        Args:
            progress: share of the budget used.
            asked: summed over all processes along with the gradients.
            watched: whether signs are wanted.
        """
        counts, here = self.counts, self.position
        update = self.truncation.update(self.model, self.source, here, self.noise, progress)
        own = [] if self.shards else self.parameters  # gradients in shares have been summed on the way back
        loss, *told = self.ranks.add_up(own, [update.loss, *asked])
        found = []
        if watched:
            batch, norms = to_tensors(self.source[here.at]), gradient_norms(self.model)
            found = signs(self.whole_model(), batch, here.state, norms) if len(batch.reset_TB) > 1 else []
        norm, bound = self.clipping(self.parameters)
        done = Step(here.at, loss, update.targets, norm, bound, told, found)
        counts.steps += 1
        counts.tokens += update.targets
        counts.rate = learning_rate(self.recipe.training, progress) * counts.rate_scale * update.rate
        self.position = update.position
        if done.finite:
            self.optimizer.step(counts.rate)
        self.optimizer.clear_gradients()
        return done

    def forget(self) -> None:
        """Begin anew with the state, at the place that was reached."""
        self.position = Position(self.position.at, self._initial())

    def weights(self) -> Arrays:
        """A copy of the weights to measure and keep, sharded as the model's are."""
        weights = self.optimizer.averaged_weights() or self.model.state_dict()
        return {name: array.clone() for name, array in weights.items()}

    def whole_model(self) -> SequenceModel:
        """The model with its current weights, whole. Every process has to call it at the same time."""
        return whole_model(self.model, self.model.state_dict()) if self.shards else self.model

    def measured_model(self) -> SequenceModel:
        """The model with the weights to measure and keep, whole. Every process has to call it at the same time."""
        averaged = self.optimizer.averaged_weights()
        return self.whole_model() if averaged is None else whole_model(self.model, averaged)

    def taken_apart(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """All of it as arrays and facts. Every process has to ask at the same time; all get the same, except of what is
        dealt, each its share."""
        arrays = {
            "model": self.model.state_dict(),
            "optimiser": self.optimizer.state_dict(),
            "position": self._position_arrays(),
            "noise": {str(rank): state for rank, state in enumerate(self.ranks.gather(self.noise.get_state()))},
        }
        facts = {
            "counts": asdict(self.counts),
            "place": [*self.position.at],
            "behind": [[*behind.at] for behind in self.position.behind],
            "norms": list(self.clipping.norms),
        }
        return arrays, facts

    def keep(self, part: str, name: str, array: Tensor) -> Tensor:
        """A copy of an array that was taken apart; of one that is dealt here, the own share.

        Args:
            part: one of those of `taken_apart`, or `best`: weights of the model.
            name: of the array there.
            array: whole.
        """
        if self.shards is None or part not in ("model", "best", "optimiser"):
            return array.clone()
        if part != "optimiser":
            return self.shards.share_of(array, self.model.get_parameter(name))
        return self.shards.share_of(array, self.optimizer.parameters()[int(name.partition(".")[0])])

    def put_together(self, arrays: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """Become what was taken apart, from what `keep` made of it.

        Where there are more processes than then, the new ones draw other noise.
        """
        self.model.load_state_dict(dict(arrays["model"]))
        self.optimizer.load_state_dict(arrays["optimiser"])
        self.counts = Counts(**facts["counts"])
        self.clipping = Clipping(self.recipe.gradient, facts["norms"])
        self.position = self._position(arrays["position"], facts)
        drawn = arrays["noise"].get(str(self.ranks.rank))
        if drawn is None:
            self.noise = _noise(self.recipe.training.seed + self.counts.steps, self.ranks.rank)
        else:
            self.noise.set_state(drawn)

    def _position_arrays(self) -> Arrays:
        def whole(state: State) -> State:
            return map_state(lambda array: self.ranks.join_lanes(array, self.source.lanes), state)

        arrays = to_arrays(whole(self.position.state))
        for index, behind in enumerate(self.position.behind):
            arrays |= to_arrays(whole(behind.state), f"behind.{index}.state")
            if behind.gradient_scale_TB is not None:
                arrays[f"behind.{index}.flow_TB"] = behind.gradient_scale_TB
        return arrays

    def _position(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Position:
        own, initial = self.source.own, self.model.initial_state(self.source.lanes)

        def state(prefix: str) -> State:
            named = {name: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
            return map_state(lambda array: array[own.start : own.stop], from_arrays(named, initial, prefix))

        behind = tuple(
            Behind(BatchIndex(*at), state(f"behind.{index}.state"), arrays.get(f"behind.{index}.flow_TB"))
            for index, at in enumerate(facts["behind"])
        )
        return Position(BatchIndex(*facts["place"]), state("state"), behind)

    def _initial(self) -> State:
        return self.model.initial_state(len(self.source.own))


def cut(recipe: Recipe, data: Data, ranks: Ranks) -> tuple[Truncation, BatchSource]:
    """How far back the gradient goes, and the batches of the training split.

    Raises:
        SettingError: where there are fewer lanes than processes.
        ThroughtimeError: where the text is too short for them.
    """
    streams, seed = recipe.streams, recipe.training.seed
    if streams.lanes < ranks.count:
        raise SettingError(
            f"streams.lanes must be at least the number of processes, {ranks.count}, got {streams.lanes}"
        )
    way = make_truncation(recipe.gradient, streams.window, seed)
    return way, data.batches(way.lengths, ranks.own(streams.lanes))


def check_model(recipe: Recipe, data: Data) -> None:
    """Refuse a model that this machine's memory could not hold in training: its weights, their gradients and means.

    Raises:
        SettingError: so, or where the cell, its engine or one of its options is unknown.
    """
    try:
        with torch.device("meta"):
            model = make_model(data.task, recipe.model, data.sizes())
    except NotImplementedError:  # somebody's cell that cannot be made without memory
        return
    parameters = count_parameters(model)
    needed = parameters * FLOAT_BYTES * (1 if recipe.training.shard else HELD)
    if (there := memory()) is not None and needed > there:
        raise SettingError(
            f"a model of {recipe.model.layers} x {recipe.model.units} units and {data.headline()} has "
            f"{parameters:,} parameters and takes {needed / 1e9:,.0f} GB to train, and this machine has "
            f"{there / 1e9:,.0f} GB; lower model.hidden_size or model.layers"
        )


def _shards(model: SequenceModel, ranks: Ranks) -> Shards:
    """Imported where they are needed: that takes most of a second."""
    from throughtime.training.shards import Shards

    return Shards(model, ranks)


def _noise(seed: int, rank: int) -> torch.Generator:
    """Another generator for each process."""
    return torch.Generator().manual_seed(seed + 1 + (rank << 40))
