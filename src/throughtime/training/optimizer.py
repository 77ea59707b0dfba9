"""The optimizer of a training, behind a protocol that the loop goes by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import final

import torch
from torch import Tensor, nn

from throughtime.training.settings import Training

Arrays = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer(ABC):
    """An update rule, and what it remembers between updates.

    Its arrays lie in a checkpoint as `index.name`, with the index of a parameter in the optimizer's own order.
    """

    @abstractmethod
    def step(self, rate: float) -> None:
        """Update the parameters from their gradients, with this learning rate."""

    @abstractmethod
    def clear_gradients(self) -> None:
        """Forget the gradients."""

    @abstractmethod
    def state_dict(self) -> Arrays:
        """What it remembers, as named arrays; sharded where the parameters are."""

    @abstractmethod
    def load_state_dict(self, arrays: Mapping[str, Tensor]) -> None:
        """Remember what `state_dict` gave."""

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
        """Hear the score of a validation, lower is better: an average may begin with it."""


@final
class AdamW(Optimizer):
    """Loshchilov & Hutter (2019), "Decoupled weight decay regularization"; the decay is for matrices only.

    Args:
        parameters: what is updated.
        training: the settings.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], training: Training):
        self._rule = make_adamw(parameters, training)

    def step(self, rate: float) -> None:
        for group in self._rule.param_groups:
            group["lr"] = rate
        self._rule.step()

    def clear_gradients(self) -> None:
        self._rule.zero_grad()

    def state_dict(self) -> Arrays:
        remembered = self._rule.state_dict()["state"]
        return {f"{index}.{name}": array for index, entry in remembered.items() for name, array in entry.items()}

    def load_state_dict(self, arrays: Mapping[str, Tensor]) -> None:
        remembered: dict[int, Arrays] = {}
        for key, array in arrays.items():
            index, _, name = key.partition(".")
            remembered.setdefault(int(index), {})[name] = array
        self._rule.load_state_dict({**self._rule.state_dict(), "state": remembered})

    def expected(self, names: Iterable[str]) -> Arrays:
        """Nothing is remembered of a parameter before its first update."""
        begun = {name.partition(".")[0] for name in names}
        wanted: Arrays = {}
        for index, parameter in enumerate(self.parameters()):
            if str(index) in begun:
                like = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                wanted |= {f"{index}.{name}": like for name in MOMENTS}
                wanted[f"{index}.step"] = torch.zeros((), dtype=torch.float32)
        return wanted

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self._rule.param_groups for parameter in group["params"]]


def make_adamw(parameters: Iterable[nn.Parameter], training: Training) -> torch.optim.AdamW:
    """PyTorch's own AdamW with the settings of a recipe; decoupled weight decay for matrices only."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, training.learning_rate, (training.beta1, training.beta2), fused=True)


def make_optimizer(parameters: Iterable[nn.Parameter], training: Training) -> Optimizer:
    """The optimizer that a recipe asks for."""
    return AdamW(parameters, training)
