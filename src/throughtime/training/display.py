"""What a person sees while a network trains: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import NamedTuple, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

SECONDS_BETWEEN_LINES = 10.0


class Moment(NamedTuple):
    """How a training stands."""

    step: int
    progress: float
    """Share of the budget used, 0 to 1."""
    nats_per_token: float
    """Of the last minibatches."""
    tokens_per_second: float
    seconds: float
    seconds_left: float | None


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

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

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
        self._progress = Progress(*columns, console=Console(stderr=True, highlight=False))
        self._task = self._progress.add_task("training", total=1.0, figures="")

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False)

    def show(self, moment: Moment) -> None:
        self._progress.start()
        self._progress.update(self._task, completed=moment.progress, figures=_figures(moment))

    def close(self) -> None:
        self._progress.stop()


def for_this_terminal() -> Display:
    """The bar where standard error is a terminal, lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()


def quoted(text: str) -> str:
    """A model's text, each line behind a bar, with what would steer a terminal written out."""
    lines = ("".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line) for line in text.split("\n"))
    return "\n".join(f"  | {line}" for line in lines)


def _figures(moment: Moment) -> str:
    left = "" if moment.seconds_left is None else f"  {_clock(moment.seconds_left)} left"
    return f"{moment.nats_per_token:.3f} nats/token  {moment.tokens_per_second:,.0f} tokens/s{left}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02.0f}" if hours else f"{minutes}:{seconds:02.0f}"
