"""The result of an evaluation, whatever the task."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class LossUnit(NamedTuple):
    """The unit of a loss."""

    quantity: str = "nats"
    item: str = "token"
    """The item that the loss is a mean over, in the singular."""

    @property
    def key(self) -> str:
        """Name of the loss in journals and reports: `nats_per_token`."""
        return f"{self.quantity}_per_{self.item}"

    @property
    def items(self) -> str:
        """The plural, which is also the name of their count in journals and reports."""
        return f"{self.item}s"

    @classmethod
    def parse(cls, text: str) -> LossUnit:
        """The unit that `str` wrote: `nats/token`."""
        quantity, _, item = text.partition("/")
        return cls(quantity, item)

    def __str__(self) -> str:
        return f"{self.quantity}/{self.item}"


class Report(Protocol):
    """The figures of a model on a split."""

    @property
    def score(self) -> float:
        """The figure by which models are compared, lower is better: it picks `best/` and drives early stopping."""

    def as_dict(self) -> dict[str, Any]:
        """The figures by their names, in the order in which they are shown."""

    def line(self) -> str:
        """The figures in a line, each with its unit."""
