"""Whose threads work, that they leave Python alone, and that they survive what a process does.

What must not have PyTorch in it runs in a process of its own, on NumPy arrays.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.calls import KERNELS, LEVELS, ODD, Case, call, draw
from throughtime.engine.choice import _native

pytestmark = pytest.mark.skipif(not LEVELS, reason="no engine")
TESTS = Path(__file__).resolve().parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="counts threads where Linux lists them")
WORK = ODD[2]
SETTING_UP = """
import os, sys
import numpy as np
from engine.calls import KERNELS, LEVELS, ODD, call, draw
from throughtime.engine.choice import _native

def results(threads, case=ODD[2]):
    kernels = {name: _native.recurrence(LEVELS[-1], name, False) for name in KERNELS}
    return {name: call(kernel, case, draw(kernel, case), threads) for name, kernel in kernels.items()}

def same(one, other):
    return all((one[name][key] == other[name][key]).all() for name in one for key in one[name])
"""
WITH_PYTORCH = "import torch; torch.set_num_threads(2); torch.ones(4_000_000).exp()\n"


def alone(code: str, *arguments: object) -> str:
    """What the code prints, in a process that has NumPy and the engine."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SETTING_UP + code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(threads):
    kernels = {name: _native.recurrence(LEVELS[-1], name, False) for name in KERNELS}
    return {name: call(kernel, WORK, draw(kernel, WORK), threads) for name, kernel in kernels.items()}


@LINUX
def test_pytorchs_threads_are_borrowed():
    if "/libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip("this PyTorch brings another OpenMP library")
    assert _native.thread_source() == "openmp"
    counting = """
before = len(os.listdir("/proc/self/task"))
results(2)
assert len(os.listdir("/proc/self/task")) == before, "threads of its own beside PyTorch's"
print(_native.thread_source())
"""
    assert alone(WITH_PYTORCH + counting) == "openmp\n"


def test_without_pytorch_its_own_threads_give_the_same(tmp_path):
    code = """
assert _native.thread_source() == "own"
for threads in (1, 2, 3):
    flat = {f"{name} {key}": array for name, found in results(threads).items() for key, array in found.items()}
    np.savez(f"{sys.argv[1]}/{threads}.npz", **flat)
assert "torch" not in sys.modules
"""
    alone(code, tmp_path)
    for threads in (1, 2, 3):
        theirs = np.load(tmp_path / f"{threads}.npz")
        for name, found in results(threads).items():
            for key, array in found.items():
                np.testing.assert_allclose(theirs[f"{name} {key}"], array, rtol=1e-5, atol=1e-5, err_msg=name)


@LINUX
def test_its_own_threads_are_made_once():
    code = """
before = len(os.listdir("/proc/self/task"))
for threads in (3, 3, 2):
    results(threads)
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert alone(code) == "2\n"


MANY_CALLERS = """
from concurrent.futures import ThreadPoolExecutor
alone = results(1)
def right(threads):
    return all(np.allclose(found[key], alone[name][key], rtol=1e-5, atol=1e-5)
               for name, found in results(threads).items() for key in found)
with ThreadPoolExecutor(6) as callers:
    print(list(callers.map(right, [1, 2, 3, 2, 3, 2] * 2)).count(True))
"""


@pytest.mark.parametrize("first", ["", WITH_PYTORCH], ids=["own", "openmp"])
def test_many_callers_at_once(first):
    """Each has a workspace of its own, and its own pool serves one at a time: the others work alone."""
    assert alone(first + MANY_CALLERS) == "12\n"


def test_python_goes_on_meanwhile():
    """Were its lock held, no other Python thread would move until the kernel returned."""
    kernel, case = _native.recurrence("portable", "lstm", False), Case(300, 32, 64, 256)
    inputs = draw(kernel, case)
    arrays = {name: inputs[name] for name in ("x", "W", "U", "vectors", "hidden0", "carried0")}
    results = {name: np.empty_like(inputs["hidden0"]) for name in ("hidden", "carried")}
    results["y"] = np.empty((case.T, case.B, case.H), np.float32)
    done = threading.Event()

    def work():
        kernel.forward(case[:5], 1, **arrays, **results)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    moves = 0
    while not done.is_set():
        time.sleep(1e-3)
        moves += 1
    worker.join()
    assert moves > 10


FORKS = """
import multiprocessing
before = results(2)
child = os.fork()
if not child:
    sys.exit(0 if same(results(2), before) and _native.thread_source() == "own" else 3)
_, status = os.waitpid(child, 0)
assert same(results(2), before), "the parent goes on as before"
assert status == 0, os.waitstatus_to_exitcode(status)
with multiprocessing.get_context("fork").Pool(2) as workers:
    print([same(found, before) for found in workers.map(results, [2, 2, 2])])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("first", ["", WITH_PYTORCH], ids=["own", "openmp"])
def test_a_forked_process_has_threads_of_its_own(first):
    """Its parent's did not come along: whoever waits for them waits for ever."""
    assert alone(first + FORKS) == "[True, True, True]\n"


AT_EXIT = """
import threading, time
network = _native.Network(LEVELS[-1], 0)
network.embed(np.zeros((5, 8), np.float32))
square = np.zeros((8, 8), np.float32)
network.add("elman-tanh", "float32", square, square, square[0], 1)
kernel = _native.recurrence(LEVELS[-1], "lstm", False)
case, inputs = ODD[2], draw(kernel, ODD[2])
begun = threading.Semaphore(0)

def read(threads):
    while True:
        network.feed_ids(np.zeros((400, 8), np.int64), None, network.initial_state(8), 1, threads)
        begun.release()

def train(threads):
    while True:
        call(kernel, case, inputs, threads)
        begun.release()

for work in (read, train):
    for threads in (1, 2):
        threading.Thread(target=work, args=(threads,), daemon=True).start()
for _ in range(40):
    begun.acquire()
print("ended")
"""


@pytest.mark.parametrize("first", ["", WITH_PYTORCH], ids=["own", "openmp"])
def test_a_daemon_thread_in_the_engine_lets_python_end(first):
    """Python ends such a thread by unwinding its stack, which C++ answers with abort."""
    assert alone(first + AT_EXIT) == "ended\n"
