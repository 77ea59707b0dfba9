"""The language model: embedding, stack, head.

Axes: T time, B batch (lane), H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from throughtime import cells, parameters
from throughtime.cells import transforms
from throughtime.cells.base import Embedded
from throughtime.cells.checking import check_ids, check_lengths
from throughtime.cells.lengths import Lengths
from throughtime.cells.masks import drop, warn_without_noise
from throughtime.cells.stack import Stack
from throughtime.cells.state import State
from throughtime.cells.weights import uninitialised, whole_size
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.folder import Description
from throughtime.models.base import Losses, SequenceModel
from throughtime.models.output import target_nats
from throughtime.models.settings import Model
from throughtime.streams.batch import NO_TARGET, Batch


@final
class LanguageModel(SequenceModel):
    """P(next token | tokens so far) = softmax(W_o h_t + b_o), with h_t from a stack over embedded tokens.

    The embedding starts normal with standard deviation 1, W_o uniform with variance 1 / (3 H), b_o zero; H is that of
    the last layer. Tied, one matrix is both: it starts with standard deviation H^-1/2, and what is read from it is
    multiplied by H^1/2, for an input that is small beside the recurrence leaves the state to itself.

    Args:
        settings: sizes and the kind of cell.
        vocabulary_size: V.
        generator: seeds the initial parameters.

    Raises:
        SettingError: where a setting cannot be, or memory does not hold the parameters.
    """

    carries_state: ClassVar[bool] = True
    embedding: nn.Parameter
    W_o: nn.Parameter
    b_o: nn.Parameter

    def __init__(self, settings: Model, vocabulary_size: int, generator: torch.Generator | None = None):
        super().__init__()
        self.settings, self.vocabulary_size = settings, whole_size("vocabulary_size", vocabulary_size)
        if self.vocabulary_size < 1:
            raise SettingError(f"vocabulary_size must be at least 1, got {vocabulary_size}")
        cells.family(settings.cell, settings.registered_by)  # a cell that is not there is named with its module
        for name, shape in parameters.outer(settings, self.vocabulary_size).items():
            self.register_parameter(name, nn.Parameter(uninitialised(*shape)))
        spread = settings.widths[-1] ** -0.5
        if not self.embedding.is_meta:  # where PyTorch would load its compiler, which takes a second
            with torch.no_grad():
                self.embedding.normal_(0, spread if settings.tied else 1.0, generator=generator)
        layers = [
            cells.create(
                settings.cell,
                layer.input_size,
                layer.hidden_size,
                engine=settings.engine,
                precision=settings.precision,
                generator=generator,
                **settings.cell_options,
            )
            for layer in parameters.layers(settings)
        ]
        self.stack = Stack(layers, settings.dropout, settings.weight_drop, settings.recurrent_dropout)
        with torch.no_grad():
            if not settings.tied:
                self.W_o.uniform_(-spread, spread, generator=generator)
            self.b_o.zero_()

    def extra_repr(self) -> str:
        settings = self.settings
        sizes = f"vocabulary_size={self.vocabulary_size}, embedding_size={self.embedding.shape[1]}"
        sizes += f", hidden_size={settings.units}, layers={settings.layers}, cell={settings.cell}"
        return sizes + ", tied" * settings.tied + f", dropout={settings.dropout:g}" * bool(settings.dropout)

    def description(self) -> Description:
        return Description(self.settings, self.vocabulary_size)

    def sibling(self) -> Self:
        return type(self)(self.settings, self.vocabulary_size)

    def step(self, ids_B: Tensor, state: State) -> tuple[Tensor, State]:
        """One token a lane: the logits_BV of the token that follows, and the state.

        Raises:
            ThroughtimeError: where ids_B is no vector of whole numbers, or the state is another's.
        """
        ids_B = check_ids(ids_B, "ids_B", 1, self.embedding)
        hidden_BH, state = self.stack.step(self.embedded(ids_B), state)
        return self.logits(hidden_BH), state

    def forward(
        self,
        ids_TB: Tensor,
        state: State = None,
        reset_TB: Tensor | None = None,
        gradient_scale_TB: Tensor | None = None,
        noise: torch.Generator | None = None,
        lengths_B: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Logits_TBV of the token that follows each, and the state; ids_TB is [T, B], time first.

        The other arguments are those of `Stack.forward`.

        Raises:
            ThroughtimeError: where an argument has the wrong kind, shape or device.
        """
        hidden_TBH, state = self._hidden(ids_TB, state, reset_TB, gradient_scale_TB, noise, lengths_B)
        return self.logits(hidden_TBH), state

    def losses(
        self,
        batch: Batch,
        state: State = None,
        gradient_scale_TB: Tensor | None = None,
        noise: torch.Generator | None = None,
    ) -> tuple[Losses, State]:
        nats_TB, state = self.nats(
            batch.inputs, batch.targets, state, batch.reset_TB, gradient_scale_TB, noise, batch.lengths_B
        )
        return Losses(nats_TB), state

    def outputs(self, batch: Batch, state: State = None) -> tuple[Tensor, State]:
        return self.forward(batch.inputs, state, batch.reset_TB, lengths_B=batch.lengths_B)

    def advance(self, batch: Batch, state: State = None, noise: torch.Generator | None = None) -> State:
        return self._hidden(batch.inputs, state, batch.reset_TB, None, noise, batch.lengths_B)[1]

    def stack_inputs(self, inputs: Any) -> Tensor:
        return self.embedded(inputs)

    def nats(
        self,
        ids_TB: Tensor,
        targets_TB: Tensor,
        state: State = None,
        reset_TB: Tensor | None = None,
        gradient_scale_TB: Tensor | None = None,
        noise: torch.Generator | None = None,
        lengths_B: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """-log P of each target (nats_TB, 0 where it is NO_TARGET, or in the padding), and the state.

        Where there are fewer steps of targets than of tokens, they belong to the last ones. Only a chunk of the logits
        exists at any time, in the backward pass too (`target_nats`).

        Raises:
            ThroughtimeError: where an argument has the wrong kind, shape or device.
        """
        targets_TB = check_ids(targets_TB, "targets_TB", 2, self.embedding).long()
        hidden_TBH, state = self._hidden(ids_TB, state, reset_TB, gradient_scale_TB, noise, lengths_B)
        steps, lanes = hidden_TBH.shape[:2]
        if len(targets_TB) > steps or targets_TB.shape[1] != lanes:
            raise ThroughtimeError(
                f"targets_TB should have shape [at most {steps}, {lanes}], got {list(targets_TB.shape)}"
            )
        before = len(ids_TB) - len(targets_TB)
        lengths = self._lengths(lengths_B, steps, lanes)
        if lengths is not None:
            targets_TB = targets_TB.where(lengths.running()[before:], NO_TARGET)
        predicting_TBH = hidden_TBH[before:]
        nats_N = target_nats(predicting_TBH.flatten(0, 1), self._output_VH, self.b_o, targets_TB.flatten())
        return nats_N.view_as(targets_TB), state

    def _hidden(
        self,
        ids_TB: Tensor,
        state: State,
        reset_TB: Tensor | None,
        gradient_scale_TB: Tensor | None,
        noise: torch.Generator | None,
        lengths_B: Tensor | None,
    ) -> tuple[Tensor, State]:
        ids_TB = check_ids(ids_TB, "ids_TB", 2, self.embedding)
        lengths = self._lengths(lengths_B, *ids_TB.shape)
        if lengths is not None:
            ids_TB = ids_TB.where(lengths.running(), 0)  # the padding may hold anything
        if noise is None and self.settings.dropout and not self.stack.drops:
            warn_without_noise(self)
        dropped = noise is not None and self.settings.dropout > 0
        few = not dropped and not transforms.active() and self.vocabulary_size < ids_TB.numel()
        x = (
            Embedded(self._scaled(self.embedding), ids_TB)
            if few
            else drop(self.embedded(ids_TB), self.settings.dropout, noise)
        )
        hidden_TBH, state = self.stack(x, state, reset_TB, gradient_scale_TB, lengths, noise)
        return drop(hidden_TBH, self.settings.dropout, noise), state

    def _lengths(self, lengths_B: Tensor | None, steps: int, lanes: int) -> Lengths | None:
        """The checked lengths; None where every lane has every step."""
        return None if lengths_B is None else check_lengths(self.stack.layers()[0], lengths_B, steps, lanes)

    def embedded(self, ids: Tensor) -> Tensor:
        """What the first layer reads, [..., D], for ids of any shape."""
        return self._scaled(embedding(check_ids(ids, "ids", None, self.embedding), self.embedding))

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows * self.settings.widths[-1] ** 0.5 if self.settings.tied else rows

    @property
    def _output_VH(self) -> Tensor:
        return self.embedding if self.settings.tied else self.W_o

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits [..., V] of the token that follows, from outputs [..., H] of the stack."""
        return linear(hidden, self._output_VH, self.b_o)
