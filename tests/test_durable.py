"""Files and folders that appear whole or not at all. What a kill or a power cut leaves is tried in tests/faults."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat

import pytest

from faults.children import fork, in_child
from throughtime import durable
from throughtime.errors import ThroughtimeError


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


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "a"

    def write():
        with durable.new_file(path, replace=False) as file:
            file.write(b"mine")
            path.write_bytes(b"another's")

    with pytest.raises(FileExistsError):
        write()
    assert path.read_bytes() == b"another's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_overwritten_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a"
    with durable.new_file(path, replace=False) as file:
        file.write(b"mine")
    with pytest.raises(FileExistsError), durable.new_file(path, replace=False) as file:
        file.write(b"again")
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_a_file_keeps_its_permissions_when_it_is_replaced(mode, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    with durable.new_file(path) as file:
        assert mode_of(next(left for left in tmp_path.iterdir() if left != path)) == mode, "private all the time"
        file.write(b"new")
    assert mode_of(path) == mode
    assert path.read_bytes() == b"new"


def test_a_file_is_as_private_as_what_it_is_made_from(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with durable.new_file(path, mode=0o600) as file:
        file.write(b"secret")
    assert mode_of(path) == 0o600
    with durable.new_file(tmp_path / "b", mode=0o600) as file:
        file.write(b"secret")
    assert mode_of(tmp_path / "b") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_a_file_keeps_its_owner_when_root_replaces_it(tmp_path):
    path = tmp_path / "a"
    path.touch()
    os.chown(path, 65534, 65534)
    durable.replace_file(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_another_group_gains_nothing_when_a_file_is_replaced(tmp_path):
    tmp_path.chmod(0o777)
    for above in tmp_path.parents[:2]:
        above.chmod(above.stat().st_mode | 0o011)
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o664)

    def replace():
        os.chdir(tmp_path)
        os.setgid(65534)
        os.setuid(65534)
        durable.replace_file(path, b"new")

    assert in_child(replace) == 0
    assert mode_of(path) == 0o604


def make_link(path, victim):
    path.symlink_to(victim)


def make_dangling_link(path, victim):
    path.symlink_to(victim.parent / "nowhere")


def make_pipe(path, _):
    os.mkfifo(path)


def make_folder(path, _):
    path.mkdir()


WRITERS = {
    "new file": lambda path: durable.replace_file(path, b"new"),
    "no other's place": lambda path: durable.new_file(path, replace=False).__enter__(),
    "appended": lambda path: durable.append(path, b"new"),
    "lock": lambda path: os.close(durable.open_lock(path)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("make", [make_link, make_dangling_link, make_pipe, make_folder])
def test_only_a_regular_file_is_written_or_replaced(make, writer, tmp_path):
    place, victim = tmp_path / "folder", tmp_path / "victim"
    victim.write_bytes(b"precious")
    place.mkdir()
    make(place / "a", victim)
    before = os.lstat(place / "a")
    with pytest.raises(ThroughtimeError, match=f"^cannot write {place}/a: it is a .*, not a regular file; "):
        WRITERS[writer](place / "a")
    assert victim.read_bytes() == b"precious"
    assert os.lstat(place / "a")[:2] == before[:2]
    assert [path.name for path in place.iterdir()] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "victim"]


def test_a_link_that_appears_meanwhile_is_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_bytes(b"precious")

    def write():
        with durable.new_file(path) as file:
            file.write(b"new")
            path.symlink_to(victim)

    with pytest.raises(ThroughtimeError, match="symbolic link"):
        write()
    assert victim.read_bytes() == b"precious"


def test_a_folder_of_a_run_is_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "best").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ThroughtimeError, match="best: it is a symbolic link, not a folder"):
        durable.make_own_folder(tmp_path / "best")


def killed_in(job):
    """Do a job in a child that is killed in its midst."""
    told, tell = os.pipe()

    def dying():
        with job():
            os.write(tell, b"x")
            signal.pause()

    child = fork(dying)
    assert os.read(told, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    path, others = tmp_path / "a", [tmp_path / "b.partial", tmp_path / "a.partial.txt", tmp_path / "a.0123.partial"]
    for other in others:
        other.write_bytes(b"another's")
    killed_in(lambda: durable.new_file(path))
    killed_in(lambda: durable.new_folder(tmp_path / "folder"))
    durable.replace_file(tmp_path / "c", b"")
    assert len(list(tmp_path.iterdir())) == 3 + len(others), "those of another name stay"
    durable.replace_file(path, b"whole")
    with durable.new_folder(tmp_path / "folder"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "c", tmp_path / "folder", *others])
    killed_in(lambda: durable.new_file(path))
    durable.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "c", tmp_path / "folder", *others])


def test_what_a_living_writer_writes_is_not_removed(tmp_path):
    with durable.new_file(tmp_path / "a") as file, durable.new_folder(tmp_path / "b") as folder:
        durable.write_file(folder / "c", [b"1"])
        durable.remove_leftovers(tmp_path)
        with durable.new_file(tmp_path / "a") as other:
            other.write(b"other")
        file.write(b"mine")
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert (tmp_path / "b" / "c").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_of_two_that_make_a_folder_at_once_one_succeeds_and_both_are_unharmed(tmp_path):
    def make():
        with durable.new_folder(tmp_path / "a") as first, durable.new_folder(tmp_path / "a") as second:
            durable.write_file(first / "1", [b"1"])
            durable.write_file(second / "2", [b"2"])

    with pytest.raises(OSError, match="not empty"):  # of the first, which ends after the second
        make()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "2"]


def test_a_file_of_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("é" * 127)
    durable.replace_file(path, b"1")
    durable.replace_file(path, b"2")
    assert path.read_bytes() == b"2"


def test_an_error_names_the_file_and_leaves_nothing(tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for write in (lambda path: durable.replace_file(path, bytes(9000)), _write_in_blocks):
            try:
                write(tmp_path / "a")
            except OSError as error:
                assert error.filename == str(tmp_path / "a"), error.filename  # noqa: PT017
                assert not list(tmp_path.iterdir())
                continue
            raise AssertionError("it was written")

    assert in_child(full) == 0


def _write_in_blocks(path):
    with durable.new_file(path) as file:
        for _ in range(9):
            file.write(bytes(9000))


def test_lines_that_cannot_be_added_whole_are_not_added(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(50))

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            durable.append(path, bytes(60))
        except OSError as error:
            assert error.filename == str(path)  # noqa: PT017
            return
        raise AssertionError("it was written")

    assert in_child(full) == 0
    assert path.stat().st_size == 50
    durable.append(path, b"1")
    assert path.stat().st_size == 51


def test_the_holder_of_a_lock_is_not_written_into_a_file_of_two_names(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.link(victim, tmp_path / "lock")
    handle = durable.open_lock(tmp_path / "lock")
    durable.write_holder(handle, b"me")
    os.close(handle)
    assert victim.read_bytes() == b"precious"
