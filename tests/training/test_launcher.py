"""The launcher of several processes: what is started again, which exit code comes out, what is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from throughtime.training import launcher
from throughtime.training.launcher import PEER_LOST, launch

RANK = (
    "import os, signal, sys, time; rank, start = int(os.environ['RANK']), int(os.environ['TORCHELASTIC_RESTART_COUNT'])"
)


def started(code: str, count: int = 2):
    """The exit code of a launch of processes that run some code, and the lines that the launcher says."""
    said: list[str] = []
    program = f"{RANK}\n{textwrap.dedent(code)}"
    return launch([sys.executable, "-c", program], count, said.append), said


def test_all_are_told_their_ranks_and_nothing_is_said_of_what_ends_well(tmp_path):
    code, said = started(f"open({str(tmp_path)!r} + f'/{{rank}} of ' + os.environ['WORLD_SIZE'], 'w')", 3)
    assert (code, said) == (0, [])
    assert sorted(os.listdir(tmp_path)) == ["0 of 3", "1 of 3", "2 of 3"]


@pytest.mark.parametrize("code", [1, 2, 130, 143])
def test_an_error_is_not_tried_again_and_its_code_comes_out(code):
    assert started(f"sys.exit({code})") == (code, [])


def test_an_error_in_a_later_process_is_shown_once(capfd):
    code, said = started(f"rank and (print('wrong', file=sys.stderr), sys.exit(2)); sys.exit({PEER_LOST})")
    assert (code, said) == (2, [])
    assert capfd.readouterr().err == "wrong\n"


def test_what_later_processes_say_is_not_shown_beside_the_first_ones_error(capfd):
    assert started("print('wrong', rank, file=sys.stderr); sys.exit(1)")[0] == 1
    assert capfd.readouterr().err == "wrong 0\n"


def test_processes_are_started_again_when_one_was_killed():
    code, said = started(
        f"""
        if start < 2:
            os.kill(os.getpid(), signal.SIGKILL) if rank else sys.exit({PEER_LOST})
        """
    )
    assert code == 0
    assert said == [f"process 1 was ended by SIGKILL; all processes are started again ({n} of 3 times)" for n in (1, 2)]


def test_processes_that_are_killed_every_time_are_given_up():
    code, said = started("os.kill(os.getpid(), signal.SIGSEGV)")
    assert (code, len(said)) == (1, 4)
    assert (
        said[-1] == "throughtime: process 0 was ended by SIGSEGV, as before 3 restarts; the run goes on with --resume"
    )


def test_processes_that_wait_for_one_that_failed_are_ended(monkeypatch):
    monkeypatch.setattr(launcher, "GRACE", 0.1)
    assert started("sys.exit(2) if rank else time.sleep(600)") == (2, [])


def test_processes_that_ignore_that_are_killed(monkeypatch):
    monkeypatch.setattr(launcher, "GRACE", 0.1)
    monkeypatch.setattr(launcher, "PATIENCE", 1.0)
    assert started("signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.exit(2) if rank else time.sleep(600)") == (2, [])


def after(path, number):
    """Send this process a signal once a file is there."""

    def send():
        while not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize(
    ("number", "code", "how"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_wish_to_end_is_passed_on(number, code, how, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "DELAYS", {signal.SIGINT: 0.0, signal.SIGTERM: 0.0})
    before = signal.getsignal(number)
    after(tmp_path / "1", number)
    wait = f"signal.signal(signal.SIGINT, signal.SIG_DFL); open({str(tmp_path)!r} + f'/{{rank}}', 'w'); time.sleep(600)"
    assert started(wait) == (code, [f"throughtime: {how}; a run that had begun goes on with --resume"])
    assert signal.getsignal(number) is before


def test_the_code_of_a_training_that_granted_the_wish_comes_out(tmp_path):
    after(tmp_path / "1", signal.SIGTERM)
    grant = f"""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        open({str(tmp_path)!r} + f'/{{rank}}', 'w'); time.sleep(600)
        """
    assert started(grant) == (143, [])


def test_processes_end_with_their_launcher(tmp_path):
    """Killed, it cannot pass anything on."""
    ended = tmp_path / "ended"
    worker = textwrap.dedent(
        f"""
        import os, signal, sys, time
        from throughtime.training.launcher import watch_launcher
        signal.signal(signal.SIGTERM, lambda *_: (open({str(ended)!r}, "w"), os._exit(0)))
        watch_launcher()
        open({str(tmp_path)!r} + "/begun", "w")
        time.sleep(600)
        """
    )
    code = """
import sys
from throughtime.training.launcher import launch
launch([sys.executable, "-c", sys.argv[1]], 1, print)
"""
    with subprocess.Popen([sys.executable, "-c", code, worker]) as parent:
        while not (tmp_path / "begun").exists() and parent.poll() is None:
            time.sleep(0.01)
        parent.kill()
    while not ended.exists():
        time.sleep(0.01)
