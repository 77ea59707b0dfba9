"""What the benchmarks share: contenders timed in turn, figures made of that, and where it is written.

A speed is a ratio of two things timed in turn in one run: what else the machine does then falls on both.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from throughtime.machine import processor, usable_threads

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "benchmarks"

Run = Callable[[int], float]
"""So many passes -> the seconds of all of them."""

PAUSE = 0.05
"""Seconds between two turns. After their work the threads of OpenMP (PyTorch's, and so ours), of XLA and of TensorFlow
spin for up to some milliseconds before they sleep, and would take the cores from whoever comes next. To forbid them to
spin (OMP_WAIT_POLICY=passive, GOMP_SPINCOUNT=0) would be another machine than the one users have: between two parallel
regions of one pass the spinning is what makes them fast. So everybody has the defaults, and time to fall asleep.

Whoever comes next then works as long without being timed. Threads that have slept while another process had its turn
may wake up on one core, and the system needs up to 50 ms of their work to part them: with two cores, turns of 40 ms
came out at half the speed throughout."""

FEWEST_ROUNDS = 3


def take_turns(
    contenders: Mapping[str, Run], rounds: int, seconds: float, pause: float = PAUSE
) -> dict[str, list[float]]:
    """Seconds a pass of each contender, in every round.

    Before that each does some passes that do not count: the first may compile, the last says how many fill a turn.

    Args:
        contenders: by name, in the order of their turns.
        rounds: turns of each; FEWEST_ROUNDS suffice where those take longer than `seconds`.
        seconds: for all turns together, without pauses and what is not timed.
        pause: seconds between turns, and then of work before a turn is timed.
    """
    passes = {}
    for name, run in contenders.items():
        run(1)
        time.sleep(pause)
        _awaken(run, 1, pause)
        passes[name] = max(1, int(seconds / rounds / len(contenders) / run(1)))
    found: dict[str, list[float]] = {name: [] for name in contenders}
    timed = 0.0
    for turn in range(rounds):
        if turn >= FEWEST_ROUNDS and timed > seconds:
            break
        for name, run in contenders.items():
            time.sleep(pause)
            _awaken(run, max(1, passes[name] // 10), pause)
            took = run(passes[name])
            timed += took
            found[name].append(took / passes[name])
    return found


def _awaken(run: Run, passes: int, seconds: float) -> None:
    """Work that is not timed: so many passes at once, until so many seconds are over."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        run(passes)


def repeat(work: Callable[[], object]) -> Run:
    """A function of this process as a contender."""

    def run(passes: int) -> float:
        began = time.perf_counter()
        for _ in range(passes):
            work()
        return time.perf_counter() - began

    return run


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3


def in_quartiles(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """`1.52x (1.48 to 1.55)`: the median and between what lies the middle half."""
    low, middle, high = quartiles(values)
    return f"{middle:{form}}{unit} ({low:{form}} to {high:{form}})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its first column to the left."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def command() -> str:
    """What was typed."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def machine() -> str:
    return f"{processor()[0]}, {usable_threads()} cores"
