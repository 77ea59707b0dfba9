"""What every test stands on: a cache of its own, and one thread."""

from __future__ import annotations

import os
import signal

import pytest
import torch

pytest_plugins = ["writes"]


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is read from, or left in, the cache of whoever runs the tests."""
    os.environ["THROUGHTIME_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small gain nothing from a second thread, and two suites on one machine lose much by it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """Ctrl-C and a hang-up are ignored by what a shell script starts in the background or `nohup` starts; so are they
    by its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
