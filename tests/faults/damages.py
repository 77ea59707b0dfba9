"""Disks that are full, files that are damaged, clocks that go back, a second training: as trials, as in trials.py.

`before` is a folder with some checkpoints, to be copied.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from faults.children import fork, in_child
from faults.jobs import FILES, newest, next_checkpoint, some_checkpoints, store, write
from faults.trials import Trial
from throughtime.errors import ThroughtimeError
from throughtime.training.lock import locked


def by_full_disk(before: Path) -> Iterator[Trial]:
    """No file may be larger than so many bytes, for one process."""

    def run(size: int, folder: Path) -> None:
        shutil.copytree(before, folder)

        def job() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            _refused(folder, "File too large")

        assert in_child(job) == 0
        assert newest(folder) == "300.0"
        next_checkpoint(folder)

    for size in (0, 1, 100, 1000, 4096, 5000, 8192, 9000, 9700):
        yield Trial(f"files of {size} bytes", partial(run, size))


def by_full_file_system() -> Iterator[Trial]:
    """A file system in memory with so many blocks left."""

    def run(blocks: int, folder: Path) -> None:
        folder.mkdir()
        assert mounted(folder)
        try:
            some_checkpoints(folder)
            free = os.statvfs(folder)
            (folder / "filler").write_bytes(bytes((free.f_bfree - blocks) * free.f_bsize))
            try:
                write(folder, 400)
                assert newest(folder) == "400.0"
            except ThroughtimeError as error:
                assert "No space left on device" in str(error)  # noqa: PT017
                assert newest(folder) in ("300.0", "400.0")  # or `last` had no room
            (folder / "filler").unlink()
            next_checkpoint(folder)
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    for blocks in range(24):
        yield Trial(f"{blocks} blocks", partial(run, blocks))


def mounted(folder: Path) -> bool:
    """Whether a small file system in memory is now in the folder's place: not everybody may put it there."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return bool(shutil.which("mount")) and not subprocess.run(command, capture_output=True, check=False).returncode


def by_read_only_folder(before: Path) -> Iterator[Trial]:
    """The folder may not be written."""

    def run(folder: Path) -> None:
        shutil.copytree(before, folder)

        def job() -> None:
            os.chdir(folder)
            if os.geteuid() == 0:  # nobody: root writes wherever it likes
                os.setuid(65534)
            assert newest(Path()) == "300.0"
            _refused(Path(), "Permission denied")

        (folder / "checkpoints").chmod(0o555)
        assert in_child(job) == 0
        (folder / "checkpoints").chmod(0o755)
        assert newest(folder) == "300.0"
        next_checkpoint(folder)

    yield Trial("checkpoints", run)


def _refused(folder: Path, reason: str) -> None:
    try:
        write(folder, 400)
    except ThroughtimeError as error:
        assert "cannot write the checkpoint of step 400" in str(error)  # noqa: PT017
        assert reason in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    raise AssertionError("it was written")


DAMAGES: dict[str, Callable[[bytes, Random], bytes | None]] = {
    "a bit flipped": lambda data, random: _flipped(data, random.randrange(8 * len(data))),
    "cut off": lambda data, random: data[: random.randrange(len(data))],
    "emptied": lambda _data, _random: b"",
    "a block of zeros": lambda data, random: _zeroed(data, random.randrange(len(data))),
    "bytes added": lambda data, random: data + random.randbytes(random.randint(1, 99)),
    "other bytes": lambda data, random: random.randbytes(len(data)),
    "gone": lambda _data, _random: None,
}


def by_damage(before: Path, tries: int) -> Iterator[Trial]:
    """A file of the newest checkpoint is damaged: a line names it, and the one before is taken."""

    def run(how: str, name: str, seed: int, folder: Path) -> None:
        shutil.copytree(before, folder)
        path = folder / "checkpoints" / "step-300" / name
        content = path.read_bytes()
        after = DAMAGES[how](content, Random(seed))
        if after is None:
            path.unlink()
        else:
            assert after != content
            path.write_bytes(after)
        (note,) = store(folder).newest().notes
        assert str(path) in note
        assert "\n" not in note
        assert newest(folder, notes=1) == "200.0"
        write(folder, 400)
        assert sorted(path.parent.parent.glob("step-?00")) == [
            path.parent.with_name(f"step-{n}") for n in (100, 200, 400)
        ]
        next_checkpoint(folder)

    ways = [(how, name) for how in DAMAGES for name in FILES]
    for seed in range(tries):
        how, name = ways[seed % len(ways)]
        yield Trial(f"{name}: {how}, {seed}", partial(run, how, name, seed))


def by_damaged_pointer(before: Path, tries: int) -> Iterator[Trial]:
    """`last` is damaged: nothing goes by it."""

    def run(how: str, seed: int, folder: Path) -> None:
        shutil.copytree(before, folder)
        path = folder / "checkpoints" / "last"
        after = DAMAGES[how](path.read_bytes(), Random(seed))
        if after is None:
            path.unlink()
        else:
            path.write_bytes(after)
        found = store(folder).newest()
        assert found.checkpoint is not None
        assert found.checkpoint.step == 300
        next_checkpoint(folder)

    for seed in range(tries):
        how = list(DAMAGES)[seed % len(DAMAGES)]
        yield Trial(f"{how}, {seed}", partial(run, how, seed))


def by_clock(before: Path, tries: int) -> Iterator[Trial]:
    """Clocks that go back: files and folders have any times."""

    def run(seed: int, folder: Path) -> None:
        random = Random(seed)
        shutil.copytree(before, folder)
        for path in [*folder.rglob("*")]:
            seconds = random.randrange(4_000_000_000)
            os.utime(path, (seconds, seconds))
        assert newest(folder) == "300.0"
        next_checkpoint(folder)

    yield from (Trial(f"times {seed}", partial(run, seed)) for seed in range(tries))


def by_second_training() -> Iterator[Trial]:
    """A training in a folder where another is at work is refused; where the other has been killed, it is not."""

    def run(folder: Path) -> None:
        told, tell = os.pipe()
        child = fork(lambda: _hold(folder, tell))
        assert os.read(told, 1) == b"x"
        try:
            with locked(folder):
                raise AssertionError("two at once")
        except ThroughtimeError as error:
            assert f"process {child} on " in str(error)  # noqa: PT017
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with locked(folder):
            pass

    yield from (Trial(f"lock {number}", run) for number in range(10))


def _hold(folder: Path, tell: int) -> None:
    with locked(folder):
        os.write(tell, b"x")
        signal.pause()


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _zeroed(data: bytes, at: int) -> bytes:
    while not any(data[at : at + 512]):
        at = 0
    return data[:at] + bytes(len(data[at : at + 512])) + data[at + 512 :]
