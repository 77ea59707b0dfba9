"""Files and folders that appear whole or not at all. What a kill or a power cut leaves is tried in tests/faults."""

from __future__ import annotations

import errno
import os

import pytest

from throughtime import durable


def test_a_new_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with durable.new_file(path) as file:
        file.write(b"whole")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), durable.new_file(path) as file:
        file.write("not bytes")
    with pytest.raises(TypeError), durable.new_folder(tmp_path / "folder") as partial:
        durable.write_file(partial / "b", ["not bytes"])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_making_may_have_its_name_last(tmp_path):
    with durable.NewFile(tmp_path) as one, durable.NewFile(tmp_path) as other:
        one.file.write(b"1")
        other.file.write(b"2")
        one.publish("a")
        other.publish("a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"2"


def test_files_have_the_rights_that_the_user_gives_to_new_ones(tmp_path):
    before = os.umask(0o027)
    try:
        durable.replace_file(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_new_folder_takes_no_other_ones_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with pytest.raises(OSError), durable.new_folder(tmp_path / "a") as partial:
        durable.write_file(partial / "new", [])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["old"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_synced(code, tmp_path, monkeypatch):
    """A file system may be unable to; one that fails is told."""

    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if code == errno.EINVAL:
        durable.sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match="Input/output error"):
            durable.sync_folder(tmp_path)
