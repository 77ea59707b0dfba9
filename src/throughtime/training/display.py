"""What a person sees while a network trains: a progress bar on a terminal, plain lines elsewhere.

A display never ends a training. Where standard error cannot be written (a closed pipe, a full disk), the training goes
on without one; its journal has every figure.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import NamedTuple, TextIO, cast, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from throughtime.objective.report import LossUnit
from throughtime.untrusted import printable

SECONDS_BETWEEN_LINES = 10.0


class Moment(NamedTuple):
    """How a training stands."""

    step: int
    progress: float
    """Share of the budget used, 0 to 1."""
    loss: float
    """Mean loss of the last minibatches."""
    items_per_second: float
    seconds: float
    seconds_left: float | None
    unit: LossUnit = LossUnit()
    """What the loss is measured in."""


class Display(ABC):
    """Shows a training."""

    @abstractmethod
    def say(self, line: str) -> None:
        """A line that stays."""

    @abstractmethod
    def show(self, moment: Moment) -> None:
        """How it stands now."""

    @abstractmethod
    def close(self) -> None:
        """The training is over."""


@final
class Silence(Display):
    """Shows nothing: for use from Python."""

    def say(self, line: str) -> None:
        pass

    def show(self, moment: Moment) -> None:
        pass

    def close(self) -> None:
        pass


@final
class Lines(Display):
    """Plain lines on standard error, one every ten seconds."""

    def __init__(self) -> None:
        self._next = SECONDS_BETWEEN_LINES
        self._stream = Unfailing(sys.stderr)

    def say(self, line: str) -> None:
        self._stream.write(printable(line, several_lines=True) + "\n")
        self._stream.flush()

    def show(self, moment: Moment) -> None:
        if moment.seconds >= self._next:
            self._next = moment.seconds + SECONDS_BETWEEN_LINES
            self.say(f"{moment.progress:4.0%}  step {moment.step:,}  {_figures(moment)}")

    def close(self) -> None:
        pass


@final
class Bar(Display):
    """A bar at the bottom of the terminal; lines scroll above it."""

    def __init__(self) -> None:
        columns = [TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[figures]}")]
        console = Console(file=cast(TextIO, Unfailing(sys.stderr)), highlight=False)
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("training", total=1.0, figures="")

    def say(self, line: str) -> None:
        self._progress.console.print(printable(line, several_lines=True), markup=False)

    def show(self, moment: Moment) -> None:
        self._progress.start()
        self._progress.update(self._task, completed=moment.progress, figures=_figures(moment))

    def close(self) -> None:
        self._progress.stop()


@final
class Unfailing:
    """A stream to write to that drops everything once writing has failed, and says so on standard output if it can.

    Args:
        stream: what is written to; None, as Python has it for a closed one: nothing is.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.encoding = "utf-8" if stream is None else stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError) as error:  # ValueError: it has been closed
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("there is no stream")
        return self._stream.fileno()

    def _give_up(self, error: OSError | ValueError) -> None:
        self._stream = None
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        try:
            print(f"standard error: {reason}; the training goes on without a display", flush=True)
        except (OSError, ValueError):
            return  # nowhere to say it


def for_this_terminal() -> Display:
    """The bar where standard error is a terminal, lines elsewhere."""
    return Bar() if Unfailing(sys.stderr).isatty() else Lines()


def quoted(text: str) -> str:
    """A model's text, each line behind a bar, with its control characters escaped."""
    return "\n".join(f"  | {line}" for line in printable(text, several_lines=True).split("\n"))


def _figures(moment: Moment) -> str:
    left = "" if moment.seconds_left is None else f"  {_clock(moment.seconds_left)} left"
    unit = moment.unit
    return f"{moment.loss:.3f} {unit}  {moment.items_per_second:,.0f} {unit.items}/s{left}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02.0f}" if hours else f"{minutes}:{seconds:02.0f}"
