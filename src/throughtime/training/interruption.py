"""Ctrl-C as a wish that a loop can grant when it is ready."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from throughtime.training.display import Display


@contextmanager
def interruption(display: Display) -> Iterator[Callable[[], bool]]:
    """Ctrl-C becomes a wish: the block asks whether it was uttered. A second Ctrl-C interrupts as ever."""
    wished = threading.Event()

    def wish(signum: int, frame: object) -> None:  # noqa: ARG001
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()
        display.say("ending after this step with what has been learned; Ctrl-C again ends at once")

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield wished.is_set
        return
    before = signal.signal(signal.SIGINT, wish)
    try:
        yield wished.is_set
    finally:
        signal.signal(signal.SIGINT, before)
