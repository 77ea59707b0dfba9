"""The journal of a run: one JSON object a line, written as it happens; and the means that go into it.

Reading it trusts nothing: a line that is cut short, damaged or forged is left out, and a note says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, ValidationError, create_model

from throughtime import durable
from throughtime.errors import ThroughtimeError
from throughtime.objective.report import LossUnit
from throughtime.untrusted import first_finding, open_regular, parse_json, to_json

JOURNAL_BYTES, JOURNAL_LINES = 1 << 28, 1_000_000
"""How much of a journal is read at most."""
LINE_BYTES = 1 << 20
"""Bytes of the longest line that is read."""
POINTS = 10_000
"""Points of a curve, at most: of more, evenly spaced ones are kept."""

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Number = Annotated[FiniteFloat, Field(ge=-1e38, le=1e38)]
"""A figure that can be drawn."""
Curve = list[tuple[float, float]]
"""Tokens read, and a value there."""


class _Fields(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Begun(_Fields):
    """How a training began."""

    parameters: Count
    threads: Count
    engine: str
    loss: Annotated[str, StringConstraints(pattern="^[a-z]+/[a-z]+$", max_length=100)] = "nats/token"
    """What the losses are measured in (`LossUnit`)."""


class Trained(_Fields):
    """Means over the steps since the entry before."""

    gradient_norm: Number | None = None
    clipped_share: Number | None = None


class Sampled(_Fields):
    """What the model wrote."""

    text: str


class Ended(_Fields):
    """How a training ended; figures are those of the best model, None where they are not finite."""

    step: Count
    seconds: FiniteFloat
    ending: str
    split: str | None
    tokens: Count = 0
    nats_per_token: FiniteFloat | None = None
    perplexity: FiniteFloat | None = None
    bits_per_byte: FiniteFloat | None = None
    unknown_share: FiniteFloat | None = None


@lru_cache
def _point_model(unit: LossUnit) -> type[BaseModel]:
    """What an entry says of a loss: how many items were read, and the loss; None where it was not finite."""
    names: dict[str, Any] = {unit.items: (Count, ...), unit.key: (Number | None, ...)}
    return create_model("Point", __base__=_Fields, **names)


class Entries:
    """The entries of a journal that pictures and cards are made from, without those that are damaged.

    Attributes:
        begun, ended, sampled: the last such entry; None where there is none.
        unit: what the losses are measured in.
        losses: training loss, where it is finite.
        validations: validation loss likewise.
        norms: length of the gradient before clipping.
        clipped: share of steps that were clipped.
        notes: what is wrong with the journal, a line each.
    """

    def __init__(self) -> None:
        self.begun: Begun | None = None
        self.unit = LossUnit()
        self.ended: Ended | None = None
        self.sampled: Sampled | None = None
        self.losses: Curve = []
        self.validations: Curve = []
        self.norms: Curve = []
        self.clipped: Curve = []
        self.notes: list[str] = []

    def add(self, entry: dict[str, Any]) -> None:
        """Take an entry in; a kind that is not needed is passed over.

        Raises:
            ValidationError: where a fact of it is missing, or not what it should be.
        """
        match entry["event"]:
            case "begin":
                self.begun = Begun.model_validate(entry)
                self.unit = LossUnit.parse(self.begun.loss)
            case "train":
                self._add_trained(Trained.model_validate(entry), *self._point(entry, entry))
            case "valid":
                _add(self.validations, *self._point(entry, entry.get("valid")))
            case "sample":
                self.sampled = Sampled.model_validate(entry)
            case "end":
                self.ended = Ended.model_validate(entry)

    def thin_out(self) -> None:
        """Keep POINTS of each curve, the last one among them."""
        for curve in (self.losses, self.validations, self.norms, self.clipped):
            step = -(-len(curve) // POINTS)
            curve[:] = curve[::-1][:: max(1, step)][::-1]

    def _point(self, entry: dict[str, Any], figures: Any) -> tuple[int, float | None]:
        """How many items were read, and the loss; None where it was not finite."""
        told = {**(figures if isinstance(figures, dict) else {}), self.unit.items: entry.get(self.unit.items)}
        point = _point_model(self.unit).model_validate(told)
        return getattr(point, self.unit.items), getattr(point, self.unit.key)

    def _add_trained(self, found: Trained, items: int, loss: float | None) -> None:
        _add(self.losses, items, loss)
        if found.gradient_norm:
            _add(self.norms, items, found.gradient_norm)
            _add(self.clipped, items, found.clipped_share or 0.0)


class _Faults:
    """How many lines are damaged, and what is wrong with the first of them."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def add(self, reason: str) -> None:
        self.count += 1
        self.first = self.first or reason


@final
class Journal:
    """The file `journal.jsonl`: entries are appended; each has an `event` and the facts of it.

    Args:
        path: the file.
        writes: whether this process writes: of several processes one does for all.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self._writes = path, writes

    def write(self, event: str, **facts: Any) -> None:
        """Append an entry to the file, which `rewrite` has made.

        Raises:
            ThroughtimeError: where that fails. What was written before is still there.
        """
        if not self._writes:
            return
        try:
            durable.append(self.path, _line({"event": event, **facts}))
        except FileNotFoundError:
            raise ThroughtimeError(
                f"{self.path} is gone: the run folder was moved or removed while it was in use; what it holds can be "
                "resumed where it is now"
            ) from None
        except OSError as error:
            raise ThroughtimeError(
                f"cannot write {self.path}: {error.strerror}; `throughtime train --out {self.path.parent} --resume` "
                "goes on from the newest checkpoint"
            ) from None

    def text(self) -> str:
        """All of it, for a checkpoint; damaged characters are replaced."""
        with open_regular(self.path) as file:
            return file.read().decode("utf-8", "replace")

    def rewrite(self, text: str) -> None:
        """Put all of it back to what it was."""
        if self._writes:
            durable.replace_file(self.path, text.encode())

    def read(self, event: str) -> Iterator[dict[str, Any]]:
        """The entries of one kind, in order, without those whose lines are damaged."""
        return (entry for _, entry in self._parsed(_Faults(), []) if entry["event"] == event)

    def entries(self) -> Entries:
        """What pictures and cards are made from, and what is wrong with the journal.

        Raises:
            ThroughtimeError: where the file cannot be read at all.
        """
        entries, faults = Entries(), _Faults()
        for number, entry in self._parsed(faults, entries.notes):
            try:
                entries.add(entry)
            except ValidationError as error:
                faults.add(f"line {number:,}: {first_finding(error)}")
        if faults.count:
            lines = f"{faults.count:,} damaged line{'s' if faults.count > 1 else ''}"
            entries.notes.append(f"{lines} of {self.path} left out, the first: {faults.first}")
        entries.thin_out()
        return entries

    def _parsed(self, faults: _Faults, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Numbers and entries of the lines that hold; what is wrong with others goes to `faults`."""
        for number, line in enumerate(self._lines(notes), 1):
            try:
                entry = parse_json(line, f"line {number:,}")
            except ThroughtimeError as error:
                faults.add(str(error))
                continue
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                yield number, entry
            else:
                faults.add(f"line {number:,}: it has no event")

    def _lines(self, notes: list[str]) -> Iterator[bytes]:
        """The lines; of one that is too long, the beginning."""
        read = lines = 0
        with open_regular(self.path) as file:
            while line := file.readline(LINE_BYTES):
                yield line
                lines += 1
                read += len(line)
                while len(line) == LINE_BYTES and not line.endswith(b"\n") and read < JOURNAL_BYTES:
                    line = file.readline(LINE_BYTES)
                    read += len(line)
                if read >= JOURNAL_BYTES or lines >= JOURNAL_LINES:
                    notes.append(f"only the first {lines:,} lines of {self.path} are read")
                    return


def _line(entry: dict[str, Any]) -> bytes:
    text = to_json(entry)
    # Names of files that are not UTF-8 hold half surrogates, which no reader of JSON takes: they are spelled out.
    return (re.sub("[\ud800-\udfff]", lambda found: f"\\\\u{ord(found[0]):04x}", text) + "\n").encode()


def _add(curve: Curve, tokens: int, value: float | None) -> None:
    if value is not None:
        curve.append((float(tokens), value))


@final
class Recent:
    """Means over the steps since the last entry in the journal; before the first step, those of the entry."""

    def __init__(self, loss: float = math.nan, items_per_second: float = 0.0):
        self._before = loss, items_per_second
        self._losses: list[tuple[float, int]] = []
        self._norms: list[float] = []
        self._tokens = self._clipped = 0
        self._seconds = 0.0

    def as_list(self) -> list[Any]:
        """All that it holds, as JSON has it: None stands for a loss that is not finite."""
        loss, rate = self._before
        return [(loss if math.isfinite(loss) else None, rate), self._losses, self._norms, self._clipped, self._seconds]

    @classmethod
    def from_list(cls, held: list[Any]) -> Recent:
        """What `as_list` gave."""
        (loss, rate), losses, norms, clipped, seconds = held
        made = cls(math.nan if loss is None else loss, rate)
        made._losses = [(loss, tokens) for loss, tokens in losses]
        made._tokens = sum(tokens for _, tokens in made._losses)
        made._norms, made._clipped, made._seconds = norms, clipped, seconds
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
    def items_per_second(self) -> float:
        return self._tokens / self._seconds if self._seconds else self._before[1]
