"""The models by the names of their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from throughtime.models.backend import network_of
from throughtime.models.base import SequenceModel
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.runtime.network import Network

MODELS: dict[str, Callable[..., SequenceModel]] = {"language": LanguageModel}
NETWORKS: dict[str, Callable[..., Network]] = {"language": network_of}


def make_model(
    task: str, settings: Model, sizes: Mapping[str, Any], generator: torch.Generator | None = None
) -> SequenceModel:
    """The model of a task.

    Args:
        task: its name.
        settings: sizes and the kind of cell.
        sizes: the sizes that come from the data (`tasks.base.Data.sizes`).
        generator: seeds the initial parameters.

    Raises:
        SettingError: where a setting cannot be, or memory does not hold the parameters.
    """
    return MODELS[task](settings, **sizes, generator=generator)


def make_network(task: str, model: SequenceModel) -> Network:
    """The model of a task as a network of the runtime, run by PyTorch. It follows later changes of the weights."""
    return NETWORKS[task](model)
