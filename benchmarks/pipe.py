"""A contender in a process of its own: told what to do, and answering, in JSON, a line a message, over a pipe.

Between two messages it waits for a line to read, which costs nothing. Knows neither PyTorch nor this package, for it
runs in the environments of the peers too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Message = dict[str, Any]
HERE = Path(__file__).resolve().parent


class Child:
    """The parent's end."""

    def __init__(self, command: Sequence[str]):
        self._command = list(command)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._process = subprocess.Popen(
            self._command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout

    def ask(self, **message: Any) -> Message:
        """Send a message and wait for its answer.

        Raises:
            RuntimeError: where the process ended instead, with what it had to say.
        """
        with contextlib.suppress(BrokenPipeError):  # the reading below finds that it ended
            print(json.dumps(message), file=self._in, flush=True)
        line = self._out.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.returncode}:\n{said}")
        answer: Message = json.loads(line)
        return answer

    def close(self) -> None:
        self._in.close()
        self._process.wait()
        self._out.close()
        self._errors.close()


class Parent:
    """The child's end. What libraries print goes to standard error from now on, not between the messages."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def next(self) -> Message | None:
        """The next message; None where there are no more."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def answer(self, **message: Any) -> None:
        print(json.dumps(message), file=self._out, flush=True)


def serve_passes(
    versions: dict[str, str],
    prepare: Callable[..., Callable[[], Sequence[Any]]],
    forget: Callable[[], None],
) -> None:
    """Be a peer in a benchmark.

    Args:
        versions: of the libraries.
        prepare: takes what it is asked for by name and gives a pass; a pass ends when its results are there, and
            returns what is to be compared with the results of others.
        forget: called when no pass prepared so far is needed any more.
    """
    import numpy as np

    parent, passes = Parent(), {}
    while message := parent.next():
        if message["do"] == "prepare":
            work = passes[message["name"]] = prepare(**message["given"])
            parent.answer(norms=[float(np.linalg.norm(np.asarray(array, np.float32))) for array in work()])
        elif message["do"] == "run":
            work = passes[message["name"]]
            began = time.perf_counter()
            for _ in range(message["passes"]):
                work()
            parent.answer(seconds=time.perf_counter() - began)
        elif message["do"] == "forget":
            passes.clear()
            forget()
            parent.answer()
        else:
            parent.answer(versions=versions)
