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


@pytest.mark.parametrize("name", ["lock", "lock/"])
def test_a_lock_that_is_a_link_or_a_folder_is_refused_and_its_target_untouched(name, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "run").mkdir()
    if name == "lock":
        (tmp_path / "run" / "lock").symlink_to(victim)
    else:
        (tmp_path / "run" / "lock").mkdir()
    with pytest.raises(ThroughtimeError, match=r"cannot write .*lock: it is a "), locked(tmp_path / "run"):
        pass
    assert victim.read_bytes() == b"precious"


def test_the_holder_is_shown_without_escape_codes(tmp_path):
    with locked(tmp_path):
        (tmp_path / "lock").write_bytes(b"\x1b[31mprocess\x07\xff\n")
        with pytest.raises(ThroughtimeError, match=r"is held by \\x1b\[31mprocess\\x07�; "), locked(tmp_path):
            pass


def test_what_killed_trainings_left_in_a_run_is_removed_when_it_is_held(tmp_path):
    left = "model.json.0123456789abcdef.partial"
    (tmp_path / "best").mkdir()
    for path in (tmp_path / left, tmp_path / "best" / left, tmp_path / "mine.partial"):
        path.write_bytes(b"half")
    with locked(tmp_path):
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["best", "lock", "mine.partial"]
