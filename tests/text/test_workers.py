"""Workers: the same ids as without, in order, read no further ahead than needed, whatever happens to a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from throughtime.errors import ThroughtimeError
from throughtime.text import tokenizer, workers
from throughtime.text.corpus import Piece
from throughtime.text.dataset import prepare
from throughtime.text.settings import Text
from throughtime.text.workers import encoded

TEXT = "the cat sat on the mat; a naïve \u4e00\u4e01 dog's 42 doors\n"


@pytest.fixture(params=["word", "bpe"])
def fitted(request):
    return tokenizer.fit(Text(tokens=request.param, vocabulary_size=280, minimum_count=1), [TEXT.encode()] * 3)


def batches(count, pieces=3):
    return [[Piece(f"{n}.{m} {TEXT}".encode(), m == 0) for m in range(pieces)] for n in range(count)]


@pytest.mark.parametrize("count", [2, 3])
def test_workers_find_the_same_ids_in_the_same_order(fitted, count):
    found = list(encoded(fitted, batches(20), 1, count))
    assert [batch for batch, _ in found] == batches(20)
    for batch, ids in found:
        alone = fitted.encode_many([piece.data for piece in batch])
        assert [(i.dtype, i.tolist()) for i in ids] == [(i.dtype, i.tolist()) for i in alone]


def test_workers_do_not_run_what_lies_in_the_working_directory(fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("queue.py", "signal.py", "throughtime.py", "numpy.py"):
        (tmp_path / name).write_text("raise SystemExit('not ours')")
    assert len(list(encoded(fitted, batches(4), 1, 2))) == 4


def test_no_more_is_read_than_is_taken_and_a_few_batches(fitted):
    read = []

    def reading():
        for batch in batches(100):
            read.append(batch)
            yield batch

    found = encoded(fitted, reading(), 1, 2)
    for taken in range(1, 10):
        next(found)
        assert len(read) == taken + 2 * workers.WAITING
    found.close()
    assert len(read) == 9 + 2 * workers.WAITING


def test_workers_end_when_nobody_takes_any_more(fitted, monkeypatch):
    started = watched(monkeypatch)
    found = encoded(fitted, batches(100), 1, 2)
    next(found)
    assert [process.poll() for process in started] == [None, None]
    found.close()
    assert [process.poll() for process in started] == [-signal.SIGKILL, -signal.SIGKILL]


def test_a_worker_that_dies_is_an_error_and_no_wait(fitted, monkeypatch):
    started = watched(monkeypatch)
    found = encoded(fitted, batches(100), 1, 2)
    next(found)
    started[1].kill()
    with pytest.raises(ThroughtimeError, match=r"ended with code -9; set text\.workers = 1 to tokenise in this one"):
        list(found)
    assert None not in [process.poll() for process in started]


def watched(monkeypatch):
    """The processes that will be started."""
    started, popen = [], subprocess.Popen

    def start(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", start)
    return started


@pytest.mark.parametrize("kind", ["byte", "char"])
def test_what_is_quick_needs_no_workers(kind, monkeypatch):
    started = watched(monkeypatch)
    fitted = tokenizer.fit(Text(tokens=kind), [TEXT.encode()])
    assert len(list(encoded(fitted, batches(3), 1 << 40, 4))) == 3
    assert started == []


def test_unasked_there_are_workers_for_a_large_text_only(fitted, monkeypatch):
    started = watched(monkeypatch)
    monkeypatch.setattr(workers, "usable_threads", lambda: 3)
    list(encoded(fitted, batches(3), workers.WORTHWHILE - 1))
    assert started == []
    list(encoded(fitted, batches(3), workers.WORTHWHILE))
    assert len(started) == 3


def test_a_text_is_the_same_whoever_tokenised_it(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text(TEXT * 400)
    found = []
    for count in (1, 2):
        monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / f"cache-{count}"))
        prepared = prepare(Text(sources=(str(tmp_path / "a.txt"),), tokens="bpe", vocabulary_size=300, workers=count))
        ids = prepared.train
        found.append(
            (ids.facts, ids.read(0, len(ids)).tolist(), sorted(os.listdir(tmp_path / f"cache-{count}" / "ids")))
        )
    assert found[0] == found[1]


def test_ctrl_c_ends_all_processes(tmp_path):
    """It goes to the whole group, workers too, which leave it to the one that started them."""
    source = tmp_path / "source.txt"
    source.write_text(TEXT * 200_000)
    told = json.dumps({"sources": [str(source)], "tokens": "word", "workers": 2, "fit_bytes": 1000})
    program = (
        "import json, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # off, where the tests run in the background
        "from throughtime.text.settings import Text\n"
        "from throughtime.text.dataset import prepare\n"
        "prepare(Text.model_validate(json.loads(sys.argv[1])))"
    )
    cache = tmp_path / "cache"
    child = subprocess.Popen(
        [sys.executable, "-c", program, told],
        env={**os.environ, "THROUGHTIME_CACHE": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(cache.glob("ids/*.partial")) and child.poll() is None:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    err = child.communicate(timeout=60)[1]
    assert child.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert "KeyboardInterrupt" in err
    assert not list(cache.glob("ids/*"))
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
