"""What every test stands on: a cache of its own, and the shared data if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is read from, or left in, the cache of whoever runs the tests."""
    os.environ["THROUGHTIME_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks this small gain nothing from a second thread, and two suites on one machine lose much by it."""
    torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("THROUGHTIME_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shakespeare() -> Path:
    """Tiny Shakespeare, where the data folder lies beside the project."""
    path = DATA / "text" / "shakespeare.txt"
    if not path.exists():
        pytest.skip("the data folder is not beside the project")
    return path
