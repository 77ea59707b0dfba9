"""A display never ends a training, and a terminal obeys nothing that it shows."""

from __future__ import annotations

import errno
import io
import sys

import pytest

import throughtime
from throughtime.training.display import Bar, Lines, Moment

MOMENT = Moment(1, 0.5, 2.0, 100.0, 99.0, 1.0)


class Broken(io.StringIO):
    """A stream that fails after some writes, as a closed pipe or a full disk does."""

    def __init__(self, error, writes, terminal=False):
        super().__init__()
        self.error, self.left, self.terminal, self.failures = error, writes, terminal, 0

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            self.failures += 1
            raise self.error
        return super().write(text)

    def isatty(self):
        return self.terminal


ERRORS = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("I/O operation on closed file."),
]


@pytest.mark.parametrize("error", ERRORS, ids=["pipe", "disk", "closed"])
def test_a_training_outlives_its_display_and_says_so_once(error, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text("abc abd abe\n" * 80)
    stream = Broken(error, writes=2)
    monkeypatch.setattr(sys, "stderr", stream)
    tree = {"text": {"sources": [str(tmp_path / "text.txt")]}, "streams": {"lanes": 2, "window": 8},
            "model": {"hidden_size": 6}, "training": {"steps": 3, "sample_tokens": 5, "threads": 1}}  # fmt: skip
    result = throughtime.train(tree, tmp_path / "run", Lines())
    assert result.steps == 3
    assert (tmp_path / "run" / "card.md").exists()
    assert stream.failures == 1
    said = capsys.readouterr().out
    assert said.count("; the training goes on without a display\n") == 1


@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_bar_outlives_its_terminal(writes, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken(ERRORS[0], writes, terminal=True))
    bar = Bar()
    for _ in range(3):
        bar.show(MOMENT)
        bar.say("a line")
    bar.close()


def test_nothing_is_shown_where_standard_error_is_closed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    Lines().say("a line")
    monkeypatch.setattr(sys, "stdout", Broken(ERRORS[1], writes=0))
    monkeypatch.setattr(sys, "stderr", Broken(ERRORS[1], writes=0))
    Lines().say("a line")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("display", [Lines, Bar])
def test_lines_are_shown_without_escape_codes_and_in_any_encoding(display, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="latin-1", write_through=True))
    shown = display()
    shown.say("caf\udce9 \x1b[31m Жук")
    shown.close()
    assert rb"caf\udce9 \x1b[31m \u0416\u0443\u043a" in raw.getvalue().replace(b"\n", b"")
