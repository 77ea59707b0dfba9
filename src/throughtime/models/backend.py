"""A language model in PyTorch as a model of the runtime: any cell can generate and score, with a kernel or without.

Axes: T time, B batch (lane), D input, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from throughtime import states
from throughtime.cells.state import State, leaves, map_state
from throughtime.models.language import LanguageModel
from throughtime.runtime.backend import Backend, Floats, Int64, Marks
from throughtime.runtime.model import Model
from throughtime.runtime.network import Network
from throughtime.states import States
from throughtime.text.tokenizer import Tokenizer


def runtime_model(model: LanguageModel, tokenizer: Tokenizer, separator: str, digest: str = "") -> Model:
    """The same model with the interface of the runtime, run by PyTorch. It follows later changes of the weights.

    Args:
        model: predicts.
        tokenizer: the one the model was trained with.
        separator: text after which a document ends and the state is reset; empty: none.
        digest: hash of the weights, which the states carry.
    """
    return Model(model.settings, network_of(model), tokenizer, digest, separator=separator)


def network_of(model: LanguageModel) -> Network:
    """The same model as a network of the runtime."""
    return Network.on(TorchBackend(model))


@final
class TorchBackend(Backend):
    """Runs a language model for a `Network`.

    Its states are the arrays of the stack's state and, behind them, the last output of the stack, from which
    `outputs_after` computes logits.
    """

    def __init__(self, model: LanguageModel):
        self._model = model

    @property
    def outputs(self) -> int:
        return self._model.vocabulary_size

    def initial_state(self, batch_size: int) -> States:
        hidden_BH = torch.zeros(batch_size, self._model.stack.hidden_size)
        return states.copy(_arrays(self._model.initial_state(batch_size), hidden_BH))

    @torch.no_grad()
    def feed_ids(
        self,
        ids: Int64,
        fresh: Marks | None,
        before: States,
        wanted: int,
        threads: int,  # noqa: ARG002
    ) -> tuple[Floats, States]:
        model = self._model
        if ids.min() < 0 or ids.max() >= model.vocabulary_size:
            raise IndexError(f"an id is not in a vocabulary of {model.vocabulary_size}")
        reset_TB = None if fresh is None else torch.from_numpy(fresh.astype(np.bool_))
        x_TBD = model.embedded(torch.from_numpy(np.ascontiguousarray(ids)))
        # Copies: the runtime's arrays may be read-only, which PyTorch does not know.
        arrays = iter(torch.from_numpy(array.copy()) for array in before)
        state = map_state(lambda _: next(arrays), model.initial_state(1))
        hidden_TBH, after = model.stack(x_TBD, state, reset_TB)
        logits_TBV = model.logits(hidden_TBH[len(ids) - wanted :])
        return logits_TBV.float().numpy(), _arrays(after, hidden_TBH[-1])

    @torch.no_grad()
    def outputs_after(self, state: States, threads: int) -> Floats:  # noqa: ARG002
        logits: Floats = self._model.logits(torch.from_numpy(state[-1].copy())).float().numpy()
        return logits


def _arrays(state: State, hidden_BH: torch.Tensor) -> States:
    return tuple(array.detach().float().numpy() for array in [*leaves(state), hidden_BH])
