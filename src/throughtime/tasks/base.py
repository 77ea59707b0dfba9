"""The contract of a task: the data that a training reads, the measures of its model, the samples that it shows.

There is a file for each task. It needs no PyTorch: the network of a task and its loss lie in `models/`, under the same
name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from throughtime.folder import Description
from throughtime.objective.evaluation import Predictor
from throughtime.objective.report import LossUnit, Report
from throughtime.recipe import Recipe
from throughtime.runtime.network import Network
from throughtime.streams.batch import Batch
from throughtime.streams.batches import BatchSource, Lengths


class Data(ABC):
    """The data of a task: its splits, and the codec between raw data and arrays.

    Attributes:
        task: name of the task.
        loss_unit: what the loss of training is measured in; reports have it under `loss_unit.key` too.
        notes: what is odd about the data, a line each.
        splits: names of the splits that there are, in the order of `train`, `valid`, `test`.
        train_size: items of the training split.
    """

    task: ClassVar[str]
    loss_unit: ClassVar[LossUnit]

    notes: Sequence[str]
    splits: Sequence[str]
    train_size: int

    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """The sizes that the model takes from the data, such as `vocabulary_size`."""

    @abstractmethod
    def fingerprints(self) -> dict[str, Any]:
        """Digests of the splits (`text`) and of the codec (`tokeniser`): a run is resumed with the same ones only."""

    @abstractmethod
    def files(self) -> Mapping[str, bytes]:
        """The codec, as files of the run folder."""

    @abstractmethod
    def description(self) -> Description:
        """What a model folder says of the model."""

    @abstractmethod
    def batches(self, lengths: Lengths | None = None, own: range | None = None) -> BatchSource:
        """The training split in minibatches.

        Args:
            lengths: lengths of windows, where they are drawn.
            own: the lanes that this process reads; None: all of them.

        Raises:
            ThroughtimeError: where there is too little data.
        """

    @abstractmethod
    def describe(self) -> list[str]:
        """The data in lines: sources, codec, each split, how validation is measured."""

    @abstractmethod
    def describe_splits(self) -> list[str]:
        """A line on each split."""

    @abstractmethod
    def headline(self) -> str:
        """What the model works on, for its card, such as `104 char tokens`."""

    @abstractmethod
    def sources(self) -> Sequence[str]:
        """The names of the data, as given."""

    @abstractmethod
    def validation_load(self) -> tuple[int, int]:
        """Targets of the validation split, and the items that an estimate reads for them; (0, 0) without one."""

    @abstractmethod
    def estimate(self, predictor: Predictor, most: int | None = None) -> Report:
        """A cheap measure on the validation split, which steers the training.

        Args:
            predictor: the model.
            most: most targets that are read; None: all.
        """

    @abstractmethod
    def evaluate(self, predictor: Predictor, split: str) -> Report:
        """The exact measure on a split."""

    @abstractmethod
    def preview(self, network: Network) -> str:
        """What the model does, for a person to look at after a validation, such as a text that it writes.

        Raises:
            ThroughtimeError: where the model cannot do it.
        """

    @abstractmethod
    def show(self, batch: Batch) -> list[dict[str, Any]]:
        """A minibatch for a person to read: a tree of plain values for each lane."""

    @abstractmethod
    def figures(self, ended: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The names and values of figures for the card, from the last entry of the journal."""


class Task(ABC):
    """One task, before its data are read.

    Args:
        recipe: the settings.
    """

    name: ClassVar[str]

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    @abstractmethod
    def read(self) -> Data:
        """Read the data and fit the codec on the training split alone.

        Raises:
            ThroughtimeError: where something is missing, unreadable or too short.
        """

    @abstractmethod
    def read_again(self, folder: Path) -> Data:
        """Read the data of a run that is resumed.

        Raises:
            ThroughtimeError: as `read` does; where a file is missing, the message says how to name its new place.
        """

    @abstractmethod
    def run_name(self) -> str:
        """A name for the folder of a run, after its data."""

    @abstractmethod
    def settled(self) -> Recipe:
        """The recipe with absolute names of files, so that it means the same from any folder."""

    @abstractmethod
    def refuse_streams(self, processes: int) -> None:
        """Refuse data that can be read only once where several processes would read them (SettingError)."""

    @abstractmethod
    def await_input(self, changes: Mapping[str, Any], folder: Path) -> None:
        """Check that a run which is resumed does not wait for data that never come.

        Args:
            changes: the settings that were given anew.
            folder: the run folder.

        Raises:
            ThroughtimeError: where they come from a stream that was not named anew.
        """
