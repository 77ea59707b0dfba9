"""The contract of a model that can be trained: `gradient/` and `training/` know nothing else of it.

Axes: T time, B batch (lane), D input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.cells.stack import Stack
from throughtime.cells.state import State
from throughtime.folder import Description
from throughtime.streams.batch import Batch


class Losses(NamedTuple):
    """Losses of a batch, not yet divided by its count of targets."""

    terms: Tensor
    """Loss of each target, of any shape; 0 where nothing is asked."""
    penalty: Tensor | None = None
    """Scalar that is added to their mean in training, such as an activation regularisation; None: nothing."""


class SequenceModel(nn.Module, ABC):
    """A recurrent stack with what reads the inputs below it and what makes the outputs above it.

    The state goes in and comes back; it is never kept on the module. Batches hold tensors (`to_tensors`).

    Attributes:
        stack: the recurrent layers, for sharding, diagnostics and probes.
        carries_state: whether the state after a batch is the one before the next. Where it is not, batches are
            independent, and the gradient cannot go back further than a batch.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["engine", "engine_reason"]

    stack: Stack
    carries_state: ClassVar[bool]

    @abstractmethod
    def losses(
        self,
        batch: Batch,
        state: State = None,
        gradient_scale_TB: Tensor | None = None,
        noise: torch.Generator | None = None,
    ) -> tuple[Losses, State]:
        """The losses of a batch, and the state after it.

        Where a batch has fewer steps of targets than of inputs, they belong to its last steps: what stands before them
        is read for the gradient alone.

        Args:
            batch: tensors.
            state: the state to begin with; None: the initial state.
            gradient_scale_TB: as in `Cell.forward`.
            noise: generator of dropout masks; None: nothing is dropped.
        """

    @abstractmethod
    def outputs(self, batch: Batch, state: State = None) -> tuple[Tensor, State]:
        """The predictions for a batch of tensors (logits, or the parameters of a distribution), and the state."""

    @abstractmethod
    def advance(self, batch: Batch, state: State = None, noise: torch.Generator | None = None) -> State:
        """The state after a batch of tensors; nothing is predicted."""

    @abstractmethod
    def stack_inputs(self, inputs: Any) -> Tensor:
        """What the first layer reads, [..., D], for inputs of a batch."""

    @abstractmethod
    def description(self) -> Description:
        """What model.json says of the model, without what only its data know."""

    @abstractmethod
    def sibling(self) -> Self:
        """A new model of the same kind and sizes."""

    def initial_state(self, batch_size: int) -> State:
        return self.stack.initial_state(batch_size)

    @property
    def engine(self) -> str:
        """What would run a sequence now: `native`, `torch` or `reference`."""
        return self.stack.engine

    @property
    def engine_reason(self) -> str:
        """Why that one, in a few words."""
        return self.stack.reason


def to_tensors(batch: Batch) -> Batch:
    """The batch with tensors in place of NumPy arrays, which share their memory."""
    return Batch(
        _to_tensors(batch.inputs),
        _to_tensors(batch.targets),
        _to_tensors(batch.reset_TB),
        batch.count,
        _to_tensors(batch.lengths_B),
    )


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _to_tensors(field: Any) -> Any:
    if isinstance(field, np.ndarray):
        return torch.from_numpy(field)
    return type(field)(*map(_to_tensors, field)) if isinstance(field, tuple) else field
