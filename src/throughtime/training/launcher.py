"""Starts the processes of a training on one machine, and starts them again when one of them dies.

A process that ends by a signal has crashed: the others are ended too, and all are started again. One that ends with an
exit code has said why: that code is the command's, and nothing is started again. The first process shows how it goes;
what another says is kept, and shown where that one was the reason. Signals are passed on.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, final

RESTARTS = 3
PEER_LOST = 75
"""Exit code of a process that ended because another one had."""
TOKEN = "THROUGHTIME_LAUNCH"
"""The environment variable that names the launch to its processes."""
MEETING = "THROUGHTIME_MEETING"
"""The environment variable with the URL of a file in which processes find each other; torchrun's have an address."""
LIFELINE = "THROUGHTIME_LIFELINE"
"""The environment variable with the number of a pipe's end that says when the launcher is gone."""
LOOK = 0.05
"""Seconds between two looks at the processes."""
DELAYS = {signal.SIGINT: 1.0, signal.SIGTERM: 0.0}
"""Seconds before a wish to end is passed on: Ctrl-C a terminal sends to all processes by itself."""
GRACE, PATIENCE = 5.0, 60.0
"""Seconds until the processes that are left when one has failed, or the first is done, are asked to end, and until they
are killed."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

Wishes = dict[signal.Signals, float]
"""SIGINT and SIGTERM that came, each with its time."""
Say = Callable[[str], None]


def launch(command: Sequence[str], count: int, say: Say) -> int:
    """Run a command in so many processes.

    Args:
        command: its words. The environment tells each process its rank, as torchrun's would.
        count: of processes.
        say: shows a line.

    Returns:
        The exit code: that of the first process where it ended well, else that of the process that was the reason.
    """
    with tempfile.TemporaryDirectory() as meeting, ExitStack() as held:
        lifeline, ours = os.pipe()
        held.callback(os.close, lifeline)
        held.callback(os.close, ours)
        environment = {
            "OMP_NUM_THREADS": "1",  # of PyTorch, until the training sets it
            **os.environ,
            TOKEN: secrets.token_hex(16),
            LIFELINE: str(lifeline),
        }
        # What the first process says is seen as it comes.
        said = [None, *(held.enter_context(tempfile.TemporaryFile()) for _ in range(1, count))]
        with _signals() as wishes:
            for start in range(RESTARTS + 1):
                environment["TORCHELASTIC_RESTART_COUNT"] = str(start)
                environment[MEETING] = Path(meeting, str(start)).as_uri()
                group = _Group(command, said, environment, lifeline)
                group.wait(wishes)
                code, crash = group.outcome(wishes, say)
                if crash is None:
                    return code
                if start < RESTARTS:
                    say(f"{crash}; all processes are started again ({start + 1} of {RESTARTS} times)")
    say(f"throughtime: {crash}, as before {RESTARTS} restarts; the run goes on with --resume")
    return 1


def launched() -> bool:
    """Whether this process was started by `launch`."""
    return LIFELINE in os.environ


def watch_launcher() -> None:
    """In a process that was started by `launch`: end, after a checkpoint, when the launcher is gone."""
    lifeline = int(os.environ[LIFELINE])

    def wait() -> None:
        os.read(lifeline, 1)  # nothing is ever written: this returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@final
class _Group:
    """Processes that were started together; what each says goes into its file, where it has one."""

    def __init__(
        self, command: Sequence[str], said: Sequence[IO[bytes] | None], environment: dict[str, str], lifeline: int
    ):
        for file in said:
            if file is not None:  # what was said before a restart does not matter any more
                file.seek(0)
                file.truncate()
        self._said = said
        self._ended: set[int] = set()
        self._children = [
            subprocess.Popen(
                command,
                env={
                    **environment,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(len(said)),
                    "LOCAL_WORLD_SIZE": str(len(said)),
                },
                stderr=file,
                pass_fds=[lifeline],
            )
            for rank, file in enumerate(said)
        ]

    def wait(self, wishes: Wishes) -> None:
        """Until all have ended. Wishes are passed on; where one fails, or the first is done, the others are ended."""
        passed: set[signal.Signals] = set()
        over, asked = None, False
        while None in (codes := [child.poll() for child in self._children]):
            now = time.monotonic()
            for number, at in list(wishes.items()):
                if number not in passed and now >= at + DELAYS[number]:
                    passed.add(number)
                    self._send(number)
            if over is None and (any(codes) or codes[0] is not None):
                over = now
            if over is not None and now > over + PATIENCE:
                self._send(signal.SIGKILL)
            elif over is not None and now > over + GRACE and not asked:
                asked = True
                self._send(signal.SIGTERM)
            time.sleep(LOOK)

    def outcome(self, wishes: Wishes, say: Say) -> tuple[int, str | None]:
        """The exit code; or, where a process died of itself, what happened."""
        codes = [child.returncode for child in self._children]
        if codes[0] == 0:
            return 0, None
        dead = [rank for rank, code in enumerate(codes) if code < 0 and rank not in self._ended]
        if dead and not wishes:
            return 1, f"process {dead[0]} was ended by {signal.Signals(-codes[dead[0]]).name}"
        for rank, code in enumerate(codes):
            if code > 0 and code != PEER_LOST:
                self._show(rank)
                return code, None
        if wishes:
            wish = signal.SIGTERM if signal.SIGTERM in wishes else signal.SIGINT
            how = "terminated" if wish == signal.SIGTERM else "interrupted"
            say(f"throughtime: {how}; a run that had begun goes on with --resume")
            return CODES[wish], None
        return 1, "a process lost its connection to the others"

    def _send(self, number: int) -> None:
        for rank, child in enumerate(self._children):
            if child.poll() is None:
                self._ended.add(rank)
                child.send_signal(number)

    def _show(self, rank: int) -> None:
        said = self._said[rank]
        if said is not None:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            sys.stderr.flush()


@contextmanager
def _signals() -> Iterator[Wishes]:
    """The wishes to end that came; a terminal that is closed wishes to terminate."""
    wishes: Wishes = {}

    def wish(number: int, frame: object) -> None:  # noqa: ARG001
        wishes.setdefault(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM, time.monotonic())

    watched = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in watched}
    for number in watched:
        if before[number] != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, wish)
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
