"""Ctrl-C and SIGTERM as wishes that a loop can grant when it is ready."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from throughtime.training.display import Display

WISHES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@contextmanager
def interruption(display: Display, patient: bool = False) -> Iterator[Callable[[], str | None]]:
    """The block asks whether a wish to end was uttered: `interrupted` (Ctrl-C), `terminated` (SIGTERM) or None.

    A second Ctrl-C interrupts as ever, unless `patient`: torchrun sends one along with the terminal's.
    """
    wishes: list[str] = []

    def wish(signum: int, frame: object) -> None:  # noqa: ARG001
        uttered = WISHES[signal.Signals(signum)]
        if uttered == "interrupted":
            if uttered in wishes and not patient:
                raise KeyboardInterrupt
            again = "" if patient else "; Ctrl-C again ends at once"
            display.say(f"ending after this step with what has been learned{again}")
        wishes.append(uttered)

    def uttered() -> str | None:
        return "terminated" if "terminated" in wishes else wishes[0] if wishes else None

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield uttered
        return
    before = {signum: signal.signal(signum, wish) for signum in WISHES}
    try:
        yield uttered
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
