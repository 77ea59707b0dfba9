"""Words and byte pairs by several processes, in the order of the text, and read no faster than ids are taken.

A worker is this module run by itself, without the working directory on its path: on its standard input come the
tokeniser, then batches of pieces; their ids go to its standard output. Nothing is pickled, and the user's program is
not run again, as it would be by `multiprocessing`.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import IO, Self, final

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.machine import usable_threads
from throughtime.text import tokenizer as tokenizers
from throughtime.text.corpus import Piece
from throughtime.text.tokenizer import Ids, Tokenizer

WORTHWHILE = 1 << 24
"""Bytes of text that take longer than workers take to start."""
MOST = 16
"""Workers that are started unasked."""
WAITING = 2
"""Batches a worker that are read ahead."""

Batch = Sequence[Piece]


def encoded(
    tokenizer: Tokenizer, batches: Iterable[Batch], size: int, workers: int = 0
) -> Generator[tuple[Batch, list[Ids]]]:
    """Each batch with the ids of its pieces, in order.

    Args:
        tokenizer: bytes and characters need no workers: their ids are made as fast as they could be handed over.
        batches: read as they are needed, and a few ahead.
        size: of all of them, in bytes.
        workers: processes; 0: one for each core, where the text is large enough.

    Raises:
        ThroughtimeError: where a worker dies.
    """
    count = workers or (min(usable_threads(), MOST) if size >= WORTHWHILE else 1)
    if count == 1 or not tokenizer.by_workers:
        for batch in batches:
            yield batch, tokenizer.encode_many([piece.data for piece in batch])
        return
    with ExitStack() as stack:
        free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(count):
            free.put(stack.enter_context(_Worker(tokenizer)))

        def encode(batch: Batch) -> list[Ids]:
            worker = free.get()
            try:
                return worker.encode(batch)
            finally:
                free.put(worker)

        threads = ThreadPoolExecutor(count)
        stack.callback(threads.shutdown, cancel_futures=True)
        ahead: deque[tuple[Batch, Future[list[Ids]]]] = deque()
        for batch in batches:
            ahead.append((batch, threads.submit(encode, batch)))
            if len(ahead) > WAITING * count:
                first, ids = ahead.popleft()
                yield first, ids.result()
        for first, ids in ahead:
            yield first, ids.result()


@final
class _Worker:
    """A process that encodes."""

    def __init__(self, tokenizer: Tokenizer):
        self._dtype = tokenizer.dtype
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self._tokenizer = tokenizer.to_json().encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def encode(self, batch: Batch) -> list[Ids]:
        try:
            if self._tokenizer:
                _send(self._to, [self._tokenizer])
                self._tokenizer = b""
            _send(self._to, [piece.data for piece in batch])
            found = _receive(self._from)
        except OSError:
            found = None
        if found is None:
            raise ThroughtimeError(
                f"a process that tokenised ended with code {self._process.wait()}; "
                "set text.workers = 1 to tokenise in this one"
            )
        return [np.frombuffer(ids, self._dtype) for ids in found]


def _send(stream: IO[bytes], parts: Sequence[bytes]) -> None:
    """How many parts there are, the length of each, then they themselves."""
    stream.write(np.array([len(parts), *map(len, parts)], "<i8").tobytes())
    stream.writelines(parts)
    stream.flush()


def _receive(stream: IO[bytes]) -> list[bytes] | None:
    """What was sent; None where the other side has ended."""
    count = stream.read(8)
    lengths = stream.read(8 * int.from_bytes(count, "little"))
    parts = [stream.read(length) for length in np.frombuffer(lengths[: len(lengths) // 8 * 8], "<i8").tolist()]
    whole = len(count) == 8 and len(parts) == int.from_bytes(count, "little")
    return parts if whole and 8 * len(parts) == len(lengths) else None


def _work() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; whoever started this ends it
    source, target = sys.stdin.buffer, sys.stdout.buffer
    opening = _receive(source)
    if not opening:
        return
    tokenizer = tokenizers.from_json(opening[0].decode())
    while batch := _receive(source):
        # Piece by piece: the library's encodings take some fifty times as much memory as the text.
        _send(target, [tokenizer.encode_many([piece])[0].tobytes() for piece in batch])


if __name__ == "__main__":
    _work()
