"""The optimizer of a training, behind a protocol that the loop goes by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from throughtime.training.settings import Training

Arrays = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")
EPSILON = 1e-8


class Optimizer(ABC):
    """An update rule and its state.

    A checkpoint holds the state as arrays `index.name`, by the index of the parameter in the optimizer's own order.
    """

    @abstractmethod
    def step(self, rate: float) -> None:
        """Update the parameters from their gradients, with this learning rate."""

    @abstractmethod
    def clear_gradients(self) -> None:
        """Clear the gradients of all parameters."""

    @abstractmethod
    def state_dict(self) -> Arrays:
        """The state as named arrays, sharded where the parameters are."""

    @abstractmethod
    def load_state_dict(self, arrays: Mapping[str, Tensor]) -> None:
        """Replace the state by one that `state_dict` gave."""

    @abstractmethod
    def expected(self, names: Iterable[str]) -> Arrays:
        """Arrays of the types and shapes that `load_state_dict` takes, where it is given arrays of these names."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The parameters in its own order."""

    def averaged_weights(self) -> Arrays | None:
        """Weights by their names in the model, where it averages them: they are measured and kept instead of the
        current ones. None: it does not."""
        return None

    def validated(self, score: float) -> None:  # noqa: B027
        """Receive the score of a validation, lower is better; averaging may begin with it."""


@final
class AdamW(Optimizer):
    """Loshchilov & Hutter (2019), "Decoupled weight decay regularization"; the decay is for matrices only.

    It calls PyTorch's function and keeps the moments itself: PyTorch's class loads its compiler, which takes more than
    a second of every training.

    Args:
        parameters: the parameters to update.
        training: the settings.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], training: Training):
        given = list(parameters)
        matrices, vectors = ([p for p in given if (p.dim() > 1) is wide] for wide in (True, False))
        self._parameters = [*matrices, *vectors]
        self._decays = [training.weight_decay] * len(matrices) + [0.0] * len(vectors)
        self._betas = training.beta1, training.beta2
        self._states: dict[int, Arrays] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        beta1, beta2 = self._betas
        for decay in dict.fromkeys(self._decays):
            numbers, gradients = [], []
            for number, parameter in enumerate(self._parameters):
                if self._decays[number] == decay and parameter.grad is not None:
                    numbers.append(number)
                    gradients.append(parameter.grad)
            states = [self._state(number) for number in numbers]
            adamw(
                [self._parameters[number] for number in numbers],
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=rate,
                weight_decay=decay,
                eps=EPSILON,
                maximize=False,
            )

    def _state(self, number: int) -> Arrays:
        """The state of a parameter, made at its first update."""
        if number not in self._states:
            parameter = self._parameters[number]
            self._states[number] = {
                "step": torch.zeros((), dtype=torch.float32),
                **{name: torch.zeros_like(parameter) for name in MOMENTS},
            }
        return self._states[number]

    def clear_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> Arrays:
        return {
            f"{number}.{name}": array for number in sorted(self._states) for name, array in self._states[number].items()
        }

    def load_state_dict(self, arrays: Mapping[str, Tensor]) -> None:
        self._states = {}
        for key, array in arrays.items():
            number, _, name = key.partition(".")
            self._states.setdefault(int(number), {})[name] = array

    def expected(self, names: Iterable[str]) -> Arrays:
        """A parameter has no state before its first update."""
        begun = {name.partition(".")[0] for name in names}
        wanted: Arrays = {}
        for index, parameter in enumerate(self._parameters):
            if str(index) in begun:
                like = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                wanted |= {f"{index}.{name}": like for name in MOMENTS}
                wanted[f"{index}.step"] = torch.zeros((), dtype=torch.float32)
        return wanted

    def parameters(self) -> list[Tensor]:
        return list(self._parameters)


def make_optimizer(parameters: Iterable[nn.Parameter], training: Training) -> Optimizer:
    """The optimizer that a recipe asks for."""
    return AdamW(parameters, training)
