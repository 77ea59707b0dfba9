"""What an evaluation says, whatever the task."""

from __future__ import annotations

from typing import Any, Protocol


class Report(Protocol):
    """The figures of a model on a split."""

    @property
    def score(self) -> float:
        """The figure by which models are compared, lower is better: it picks `best/` and drives early stopping."""

    def as_dict(self) -> dict[str, Any]:
        """The figures by their names, in the order in which they are shown."""

    def line(self) -> str:
        """The figures in a line, each with its unit."""
