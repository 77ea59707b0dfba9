"""Memory that the engine lends, never to two at once, and memory that its threads keep."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from throughtime import engine

pytestmark = pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("size", [1, 1000, 5 << 20])
def test_a_block_is_used_again(size):
    first = engine.memory(size)
    assert (first.shape, first.dtype) == ((size,), np.uint8)
    where = address(first)
    part = first[: size // 2 + 1]
    del first
    other = engine.memory(size)
    assert address(other) != where  # a part of it is still held
    del part, other
    assert where in {address(block) for block in [engine.memory(size), engine.memory(size)]}


def test_blocks_do_not_overlap():
    sizes = [1, 63, 64, 65, 4096, 3 << 20, 5 << 20, 9 << 20]
    blocks = [engine.memory(size) for size in sizes for _ in range(3)]
    spans = sorted((address(block), address(block) + block.size) for block in blocks)
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))
    assert all(begin % 64 == 0 for begin, _ in spans)


def test_threads_borrow_at_the_same_time():
    def use(number: int) -> bool:
        for turn in range(200):
            block = engine.memory(1 + (number * 7919 + turn * 104729) % 300_000)
            block[:] = number
            again = engine.memory(block.size)
            again[:] = number + 100
            if (block != number).any():
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(use, range(8)))


RESIDENT = """
import sys, threading
import numpy as np
from throughtime.runtime import Layer, Network
from throughtime import engine

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def network(H):
    square, row = np.zeros((H, H), np.float32), np.zeros(H, np.float32)
    layer = Layer("elman", {"W_hx": square, "W_hh": square, "b_h": row})
    return Network([layer], np.zeros((3, H), np.float32), threads=1)
"""


def megabytes(code: str) -> int:
    """What the code prints, in a process of its own, where no other test has taken memory."""
    done = subprocess.run([sys.executable, "-c", RESIDENT + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) >> 20


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read where Linux tells it")
def test_threads_keep_little_after_a_large_call():
    """Rows between two layers and scratch memory for all steps at once would be 300 MB."""
    code = """
model = network(64)
model.feed(np.zeros((2, 1), np.int64), model.initial_state(1), 1)
before, meet = resident(), threading.Barrier(4)

def read():
    model.feed(np.zeros((100_000, 1), np.int64), model.initial_state(1), 0)
    meet.wait()
    meet.wait()

for _ in range(3):
    threading.Thread(target=read).start()
meet.wait()
print(resident() - before)
meet.wait()
"""
    assert megabytes(code) < 60


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read where Linux tells it")
def test_a_large_block_is_given_back_to_the_system_after_a_thousand_small_ones():
    code = """
before = resident()
engine.memory(100 << 20)[:] = 1
for _ in range(1100):
    engine.memory(1 << 20)
print(resident() - before)
"""
    assert megabytes(code) < 30
