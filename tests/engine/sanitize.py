"""Every kernel through all that touches memory or other threads. A script, for a library built with a sanitizer
(`make sanitize`): it needs neither PyTorch, whose threads no sanitizer sees, nor pytest.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine.calls import KERNELS, LEVELS, ODD, WANTED, Case, call, draw
from throughtime.engine.choice import _native

CASES = (*ODD, Case(2, 40, 5, 33, marked=True, masked=True), Case(2, 18, 3, 70, V=300))
"""In these two, threads share lanes; in most of the others, units."""


def exercise(name: str) -> int:
    """All levels and precisions of a kernel; returns the number of calls."""
    calls = 0
    for level in LEVELS:
        for bf16 in (False, True):
            kernel = _native.recurrence(level, name, bf16)
            for number, case in enumerate(CASES):
                inputs = draw(kernel, case)
                for threads, wanted in ((1, WANTED), (3, WANTED), (4, WANTED), (2, WANTED[number % 6 :][:1]), (2, ())):
                    # A thread of its own has a workspace of its own, no larger than it needs: nothing lies beyond.
                    with ThreadPoolExecutor(1) as fresh:
                        found = fresh.submit(call, kernel, case, inputs, threads, wanted, spoil=False).result()
                    assert all(np.isfinite(array).all() for array in found.values()), (level, name, case, threads)
                    calls += 1
    return calls


def borrow(number: int) -> None:
    """Blocks that are taken and left in turn with other threads."""
    for turn in range(100):
        blocks = [_native.memory(1 + (number * 7919 + turn * 104729 * i) % 6_000_000) for i in range(3)]
        for block in blocks:
            block[:: block.size // 9 + 1] = number
            block[-1] = number
        del blocks[turn % 3]


def fork() -> None:
    """A child that makes threads of its own and ends as processes do."""
    child = os.fork()
    if not child:
        exercise(KERNELS[0])
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0


def main() -> None:
    assert _native.thread_source() == "own"
    alone = sum(map(exercise, KERNELS))
    with ThreadPoolExecutor(3) as callers:
        together = sum(callers.map(exercise, KERNELS[:3]))
        list(callers.map(borrow, range(6)))
    if "fork" in sys.argv:
        fork()
    print(f"{', '.join(LEVELS)}: {alone} calls alone, {together} beside one another")


if __name__ == "__main__":
    main()
