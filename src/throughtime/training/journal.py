"""The journal of a run: one JSON object a line, written as it happens; and the means that go into it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from throughtime.durable import replace_file


@final
class Journal:
    """Appends entries to `journal.jsonl`; each has an `event` and the facts of it.

    Args:
        path: the file.
        writes: whether it does; of several processes one writes for all.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self._writes = path, writes

    def write(self, event: str, **facts: Any) -> None:
        if not self._writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")

    def text(self) -> str:
        """All of it."""
        return self.path.read_text("utf-8") if self.path.exists() else ""

    def rewrite(self, text: str) -> None:
        """Put all of it back to what it was."""
        if self._writes:
            replace_file(self.path, text.encode())

    def read(self, event: str) -> Iterator[dict[str, Any]]:
        """The entries of one kind, in order."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                if entry["event"] == event:
                    yield entry


@final
class Recent:
    """Means over the steps since the last entry in the journal; before the first step, those of the entry."""

    def __init__(self, loss: float = math.nan, tokens_per_second: float = 0.0):
        self._before = loss, tokens_per_second
        self._losses: list[tuple[float, int]] = []
        self._norms: list[float] = []
        self._tokens = self._clipped = 0
        self._seconds = 0.0

    def as_list(self) -> list[Any]:
        """All that it holds, as JSON has it."""
        return [self._before, self._losses, self._norms, self._clipped, self._seconds]

    @classmethod
    def from_list(cls, held: list[Any]) -> Recent:
        """What `as_list` gave."""
        made = cls(*held[0])
        made._losses = [(loss, tokens) for loss, tokens in held[1]]
        made._tokens = sum(tokens for _, tokens in made._losses)
        made._norms, made._clipped, made._seconds = held[2:]
        return made

    def add(self, loss: float, tokens: int, norm: float, clipped: bool, seconds: float) -> None:
        """A step: the mean loss of its tokens, the gradient's norm and whether it was too large."""
        self._losses.append((loss, tokens))
        self._tokens += tokens
        self._norms.append(norm)
        self._clipped += clipped
        self._seconds += seconds

    @property
    def loss(self) -> float:
        if not self._losses:
            return self._before[0]
        return math.fsum(loss * tokens for loss, tokens in self._losses) / self._tokens

    @property
    def norm(self) -> float | None:
        return math.fsum(self._norms) / len(self._norms) if self._norms else None

    @property
    def clipped(self) -> float | None:
        return self._clipped / len(self._norms) if self._norms else None

    @property
    def tokens_per_second(self) -> float:
        return self._tokens / self._seconds if self._seconds else self._before[1]
