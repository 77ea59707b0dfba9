"""Memory that the engine lends: never to two at once, and used again."""

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
