"""Every kernel once through everything that touches memory or other threads. A script, to be run on a library that was
built with a sanitizer (`make sanitize`): PyTorch and pytest would be hours under one, and are none of its business.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine.calls import KERNELS, LEVELS, ODD, WANTED, Case, call, draw
from throughtime.engine.choice import _native

CASES = (*ODD, Case(3, 40, 5, 33, marked=True, masked=True), Case(2, 18, 3, 70, V=300))
"""More than one group of threads, and more rows than a tile has."""


def exercise(name: str) -> int:
    """Every level, precision and number of threads. One call may want what the other leaves out."""
    calls = 0
    for level in LEVELS:
        for bf16 in (False, True):
            kernel = _native.recurrence(level, name, bf16)
            for number, case in enumerate(CASES):
                inputs = draw(kernel, case)
                for threads in (1, 2, 3, 4):
                    found = call(kernel, case, inputs, threads, spoil=False)
                    assert all(np.isfinite(array).all() for array in found.values()), (level, name, case, threads)
                    calls += 1
                call(kernel, case, inputs, 3, wanted=(), spoil=False)
                call(kernel, case, inputs, 2, wanted=[WANTED[number % len(WANTED)]], spoil=False)
    return calls


def fork() -> None:
    """A child with threads of its own, that ends as processes do."""
    child = os.fork()
    if not child:
        exercise(KERNELS[0])
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0


def main() -> None:
    assert _native.thread_source() == "own"
    alone = sum(map(exercise, KERNELS))
    with ThreadPoolExecutor(4) as callers:
        together = sum(callers.map(exercise, KERNELS[:4]))
    if "fork" in sys.argv:
        fork()
    print(f"{', '.join(LEVELS)}: {alone} calls alone, {together} beside one another")


if __name__ == "__main__":
    main()
