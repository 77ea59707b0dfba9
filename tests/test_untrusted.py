"""Files, JSON and text that somebody else may have made."""

from __future__ import annotations

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.errors import ThroughtimeError
from throughtime.untrusted import JSON_DEPTH, open_regular, parse_json, printable, read_file, read_text, to_json


def test_a_regular_file_is_read_through_a_symbolic_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "link") == b"content"


def test_a_pipe_a_device_a_socket_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in [
            (tmp_path / "pipe", "a pipe"),
            ("/dev/zero", "a device"),
            (tmp_path / "socket", "a socket"),
            (tmp_path, "a folder"),
        ]:
            with pytest.raises(ThroughtimeError, match=f"^cannot read {path}: it is {kind}, not a regular file$"):
                open_regular(path)


def test_a_missing_file_and_an_impossible_name_are_one_line(tmp_path):
    with pytest.raises(ThroughtimeError, match=r"^cannot read .*missing: No such file or directory$"):
        read_file(tmp_path / "missing")
    with pytest.raises(ThroughtimeError, match=r"^cannot read 'a\\x00b': "):
        read_file("a\0b")


def test_a_file_larger_than_it_may_be_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ThroughtimeError, match="1,099,511,627,776 bytes, and may have at most 10"):
        read_file(tmp_path / "large", 10)


def test_a_text_that_is_not_utf8_names_the_byte(tmp_path):
    (tmp_path / "text").write_bytes(b"ab\xff")
    with pytest.raises(ThroughtimeError, match="byte 2 is not UTF-8"):
        read_text(tmp_path / "text")


@pytest.mark.parametrize(
    "content",
    ["{", "NaN", "-Infinity", "1e999", "[" * 100_000, "[" * (JSON_DEPTH + 1) + "]" * (JSON_DEPTH + 1), '"\\ud800"',
     '{"\\udfff": 1}', b"\xff", "1" * 5000],
)  # fmt: skip
def test_what_is_not_json_is_one_line_that_names_it(content):
    with pytest.raises(ThroughtimeError, match=r"^x\.json ") as caught:
        parse_json(content, "x.json")
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_comes_back_as_it_was_written(value):
    assert parse_json(to_json(value), "it") == value


def test_numbers_that_are_not_finite_are_written_as_null():
    written = to_json({"a": [float("nan"), (float("inf"), 1.5)]})
    assert json.loads(written) == {"a": [None, [None, 1.5]]}


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_holds_no_control_character(text):
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or "\ud800" <= c <= "\udfff" for c in shown)
    assert "\u202e" not in shown


def test_printable_text_keeps_letters_and_spaces_and_shows_the_rest():
    assert printable("naïve 猫\u00a0x") == "naïve 猫\u00a0x"
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert printable("a\x1b[31mb\nc\td", several_lines=True) == "a\\x1b[31mb\nc\td"
