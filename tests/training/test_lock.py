"""One training at a time in a run folder. That a killed process holds nothing is tried in tests/faults."""

from __future__ import annotations

import os
import platform

import pytest

from throughtime.errors import ThroughtimeError
from throughtime.training.lock import locked


def test_a_second_training_is_refused_with_a_line(tmp_path):
    folder = tmp_path / "runs" / "mine"
    with locked(folder):
        with pytest.raises(ThroughtimeError) as caught, locked(folder):
            pass
        assert str(caught.value) == (
            f"{folder} is held by process {os.getpid()} on {platform.node()}; end that training, or name another --out"
        )
    with locked(folder):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ThroughtimeError, match="cannot write to the run folder"), locked(tmp_path / "file" / "run"):
        pass
