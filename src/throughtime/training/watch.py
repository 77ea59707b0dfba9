"""What a training remembers of what it measured and met; a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict

from throughtime.settings import Whole
from throughtime.training.validation import Record


@dataclass
class Watch:
    """What the loop remembers of what it measured and met."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # how `training.facts` reads it
    best: float | None = None
    """Nats per token of the best validation."""
    since_best: Whole = 0
    """Validations since then."""
    sample: str = ""
    """The last text written."""
    skipped_in_a_row: Whole = 0
    rollbacks: Whole = 0
    warned: list[str] = field(default_factory=list)
    """Warnings that were given, each once."""
    validations: Record = field(default_factory=Record)
    """What the schedule of validations has to know."""

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Watch:
        """The watch that `asdict` took apart; older checkpoints know of no schedule."""
        return cls(**{**facts, "validations": Record(**facts.get("validations", {}))})
