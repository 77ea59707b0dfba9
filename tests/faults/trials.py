"""Writers that are interrupted, as trials: each breaks one off really, and looks at what is left.

A trial takes a folder that is not there yet, and raises AssertionError where something was lost: where a reader does
not find exactly what some writer wrote, finds something older than it need be, or where the next write fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from faults.children import Kill, killed, kills
from faults.disk import Disk, Loss, losses
from faults.jobs import Job
from faults.watching import Operation, recorded, watching
from throughtime.errors import ThroughtimeError


class Trial(NamedTuple):
    name: str
    run: Callable[[Path], None]


class Recording(NamedTuple):
    """A job as it goes when nothing is in its way."""

    job: Job
    before: Path
    """What is there before it, to be copied."""
    operations: list[Operation]

    def commits(self, upto: int) -> int:
        """How many of the job's commits are among so many operations."""
        found = 0
        for operation in self.operations[:upto]:
            if operation.kind in ("rename", "link") and Path(operation.to).name == [*self.job.commits, ""][found]:
                found += 1
        return found


def record(job: Job, folder: Path) -> Recording:
    before, after = folder / job.name / "before", folder / job.name / "after"
    before.mkdir(parents=True)
    job.prepare(before)
    assert job.state(before) == job.states[0]
    shutil.copytree(before, after)
    operations = recorded(after, lambda: job.run(after))
    assert job.state(after) == job.states[-1]
    nothing_went_past(before, operations, after)
    found = Recording(job, before, operations)
    assert found.commits(len(operations)) == len(job.commits)
    return found


def by_kill(recording: Recording) -> Iterator[Trial]:
    """SIGKILL before, after and in the midst of each operation."""

    def run(kill: Kill, folder: Path) -> None:
        job = recording.job
        shutil.copytree(recording.before, folder)
        killed(folder, lambda: job.run(folder), kill)
        assert job.state(folder) == job.states[recording.commits(kill.at + (kill.phase == "after"))]
        job.again(folder)

    for kill in kills(recording.operations):
        yield Trial(
            f"{recording.job.name}: {kill.phase} {recording.operations[kill.at].kind} {kill.at}", partial(run, kill)
        )


def by_power_cut(recording: Recording, seeds: int) -> Iterator[Trial]:
    """The power goes after each operation, and takes of what was not synced all, some or nothing."""

    def run(upto: int, loss: Loss, folder: Path) -> None:
        job = recording.job
        disk = Disk(recording.before)
        for operation in recording.operations[:upto]:
            disk.do(operation)
        disk.after(loss, folder)
        whole = upto == len(recording.operations)
        assert job.state(folder) in (job.states[-1:] if whole else job.states[: recording.commits(upto) + 1])
        job.again(folder)

    for upto in range(len(recording.operations) + 1):
        for name, loss in losses(seeds).items():
            yield Trial(f"{recording.job.name}: {name} after {upto}", partial(run, upto, loss))


def by_kill_and_power_cut(recording: Recording, losing: Sequence[str]) -> Iterator[Trial]:
    """SIGKILL, a next write that ends well, and then the power goes: what it wrote is there."""

    def run(at: int, loss: Loss, folder: Path) -> None:
        job = recording.job
        went_on = folder.with_name(folder.name + "-went-on")
        shutil.copytree(recording.before, went_on)
        killed(went_on, lambda: job.run(went_on), Kill(at, "before"))
        disk = Disk(recording.before)
        for operation in [*recording.operations[:at], *recorded(went_on, lambda: job.again(went_on), names="again")]:
            disk.do(operation)
        disk.after(loss, folder)
        assert job.state(folder) == job.state(went_on)

    for at in range(len(recording.operations)):
        for name in losing:
            yield Trial(f"{recording.job.name}: {name}, killed before {at}", partial(run, at, losses(0)[name]))


def by_error(recording: Recording, code: int) -> Iterator[Trial]:
    """An operation, or half of a write, fails: a line says so, and the next write of the same process works."""

    def run(at: int, folder: Path) -> None:
        job = recording.job
        shutil.copytree(recording.before, folder)
        try:
            with watching(folder, failing(at, code)):
                job.run(folder)
        except (ThroughtimeError, OSError) as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert os.strerror(code) in str(error)  # noqa: PT017
        assert job.state(folder) in job.states
        job.again(folder)

    for at, operation in enumerate(recording.operations):
        yield Trial(f"{recording.job.name}: {operation.kind} {at}", partial(run, at))


def failing(at: int, code: int) -> Callable[..., Any]:
    """A hook that lets an operation fail, with half of it done."""
    numbers = count()

    def hook(_: Operation, perform: Callable[[], Any], half: Callable[[], Any]) -> Any:
        if next(numbers) == at:
            half()
            raise OSError(code, os.strerror(code))
        return perform()

    return hook


def nothing_went_past(before: Path, operations: list[Operation], after: Path) -> None:
    """What was told of a job makes what the job made."""
    disk = Disk(before)
    for operation in operations:
        disk.do(operation)
    made = after.with_name("told")
    disk.after(losses(0)["none"], made)
    files = {path.relative_to(after): path.read_bytes() for path in after.rglob("*") if path.is_file()}
    assert files == {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
