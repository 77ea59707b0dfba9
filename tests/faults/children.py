"""Jobs in processes of their own, which are killed where a plan says."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from faults.watching import Operation, watching

PHASES = ("before", "midst", "after")


class Kill(NamedTuple):
    """Where a process dies: at which of its operations, and in which phase of it."""

    at: int
    phase: str


def kills(operations: list[Operation]) -> list[Kill]:
    """Every place to die in a job that was recorded: before and after each operation, in the midst of each write."""
    return [
        Kill(at, phase)
        for at, operation in enumerate(operations)
        for phase in PHASES
        if phase != "midst" or operation.kind == "write"
    ]


def killed(root: Path, job: Callable[[], Any], kill: Kill) -> None:
    """Do a job in a child that dies by SIGKILL where the plan says.

    Raises:
        AssertionError: where it did not come to that.
    """
    status = in_child(lambda: dying(root, job, kill))
    assert os.WIFSIGNALED(status), f"{kill} was never reached"
    assert os.WTERMSIG(status) == signal.SIGKILL


def dying(root: Path, job: Callable[[], Any], kill: Kill) -> None:
    """Do a job; this process dies where the plan says."""
    numbers = count()  # two threads may ask for the next at once

    def die(operation: Operation, perform: Callable[[], Any], half: Callable[[], Any]) -> Any:  # noqa: ARG001
        if next(numbers) != kill.at:
            return perform()
        try:
            return {"before": lambda: None, "midst": half, "after": perform}[kill.phase]()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    with watching(root, die):
        job()


def in_child(job: Callable[[], Any]) -> int:
    """Do a job in a child, and give what `os.waitpid` says of its end."""
    return os.waitpid(fork(job), 0)[1]


def fork(job: Callable[[], Any]) -> int:
    """Begin a job in a child, and give its process id."""
    with warnings.catch_warnings():
        # Of threads that hold locks while the process is doubled: those of PyTorch hold none that a writer takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    try:
        job()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
