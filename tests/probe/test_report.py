"""The report as a file: what it holds, what it may not hold, and that no text can break out of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from helpers import ArrayTokens, model_folder
from throughtime.errors import ThroughtimeError
from throughtime.models.saved import load
from throughtime.probe import inspection, summary
from throughtime.probe.report import html as report
from throughtime.probe.report import text as pieces

HOSTILE = 3 * (
    "</script><script>alert(1)</script><!--<script>\x00\x07\x1b[31m\u2028\u202e"
    '<b title="x">&amp; ]]> \\u003c \ud7ff\U0001f600\r\n\t'
)


class Elements(HTMLParser):
    """The elements of a page, and the text of scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.code: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.names and self.names[-1] in ("script", "style") and data.strip():
            self.code.append(data)


def inspected(folder, text: str, **values):
    model_folder(folder, text, **{"cell": "lstm", "hidden_size": 6, "spread": 0.3, **values})
    loaded = load(folder)
    return inspection.inspect(loaded, "a text", ArrayTokens(loaded.tokenizer.encode(text).astype(np.int64)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return inspected(tmp_path_factory.mktemp("model") / "<i>&model", HOSTILE)


@pytest.fixture(scope="module")
def page(hostile):
    return Elements(report.render(hostile))


def numbers(packed: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), dtype)


def test_a_hostile_text_stays_text(page):
    template = (Path(report.__file__).parent / "page" / "report.html").read_text("utf-8")
    assert page.names == Elements(template).names, "no element but the template's"
    data = json.loads(page.code[1])
    assert "".join(data["text"]["tokens"]) == "".join(pieces.visible(c.encode()) for c in HOSTILE)
    assert data["title"] == "<i>&model"
    assert "<" not in page.code[1]
    shown = "".join(data["text"]["tokens"])
    assert all(c.isprintable() or c in "\n\t" for c in shown), "nothing steers the page"


def test_the_policy_lets_nothing_run_or_load_but_what_is_here(page):
    policy = next(value for name, value in page.attributes if name == "content" and value.startswith("default-src"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules.keys() == {"default-src", "img-src", "script-src", "style-src", "base-uri", "form-action"}
    for rule, code in (("style-src", page.code[0]), ("script-src", page.code[2])):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "action", "style")
        assert name != "href" or value.startswith("data:")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.code[0] + page.code[2])


def test_what_was_found_is_what_is_shown(hostile, page):
    data, reading = json.loads(page.code[1]), hostile.reading
    text, count = data["text"], len(reading.ids_T)
    assert text["bits"][0] is None
    assert text["bits"][1:] == pytest.approx(reading.nats_T[1:] / np.log(2), abs=1e-3)
    guesses = numbers(text["guesses"], "<u4").reshape(count, text["guesses_each"])
    assert (guesses == reading.guesses_TK).all()
    chances = numbers(text["chances"], "<u2").reshape(guesses.shape) / 65535
    assert chances[1:] == pytest.approx(reading.chances_TK[1:], abs=1e-5)
    assert all(str(token) in text["guessed"] for token in guesses.flat)
    past = numbers(text["past"], "u1").reshape(count, text["lags"]) / 255 * np.array(text["past_peaks"])[:, None]
    assert past == pytest.approx(hostile.past_NK, abs=float(hostile.past_NK.max()) / 200)
    for track, of_page in zip(reading.tracks, data["units"]["tracks"], strict=True):
        values = numbers(of_page["values"], "i1").reshape(len(of_page["units"]), count)
        values = values / 127 * np.array(of_page["scales"])[:, None]
        assert values == pytest.approx(track.values_TH.T, abs=float(np.abs(track.values_TH).max()) / 200)


def test_where_units_are_too_many_the_best_are_shown(tmp_path, monkeypatch):
    text = "a word, and (more) of them\n" * 30
    found = inspected(tmp_path / "model", text)
    monkeypatch.setattr(pieces, "ACTIVATIONS", 4 * len(text))
    monkeypatch.setattr(pieces, "FEWEST_SHOWN", len(text))
    data = json.loads(Elements(report.render(found)).code[1])
    kept = [(t, unit) for t, track in enumerate(data["units"]["tracks"]) for unit in track["units"]]
    assert len(kept) == 4
    best = {found.unit(found.scores.best(f, 1)[0]) for f in range(2)}
    assert best <= set(kept)
    for f, feature in enumerate(data["units"]["features"]):
        for place, r in feature["best"]:
            number = kept[place][1] + 6 * kept[place][0]
            assert r == pytest.approx(found.scores.r_FU[f, number], abs=1e-3)


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b"a", "a"), ("é\U0001f600".encode(), "é\U0001f600"), (b"\n", "\n"), (b"\t", "\t"), (b"\r", "\\r"),
        (b"\x00", "\\x00"), ("\u202e".encode(), "\\u202e"), (b"\xc3", "\\xc3"), (b"a\xff<", "a\\xff<"),
        ("\u00a0".encode(), "\\xa0"),
    ],
)  # fmt: skip
def test_what_would_not_show_is_written_out(piece, shown):
    assert pieces.visible(piece) == shown


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("ab", "char"), ("aaaa", "char"), ("ä", "byte"), ("ä\n\nb" * 9, "byte"), ("a b ä\n" * 9, "bpe")],
)
def test_any_text_of_two_tokens_gives_a_report(tmp_path, text, tokens):
    found = inspected(tmp_path / "model", text, tokens=tokens)
    assert len(report.render(found)) > 1000
    assert json.dumps(summary.as_json(found), allow_nan=False)
    assert summary.lines(found)


def test_a_network_that_explodes_is_refused_in_a_line(tmp_path):
    with pytest.raises(ThroughtimeError, match="outgrows all numbers along a text"):
        inspected(tmp_path / "model", "explode " * 60, cell="elman", cell_options={"activation": "relu"}, spread=1.0)


def test_only_a_report_is_a_report(tmp_path, hostile):
    path = tmp_path / "x.html"
    assert not report.is_report(path)
    path.write_text("<!doctype html>\n<p>")
    assert not report.is_report(path)
    path.write_text(report.render(hostile), "utf-8")
    assert report.is_report(path)


def test_a_state_too_large_for_jacobians_leaves_them_out_and_says_so(tmp_path, monkeypatch):
    whole = inspected(tmp_path / "a", HOSTILE)
    assert whole.examined is not None
    assert whole.omission is None
    monkeypatch.setattr(inspection, "ENTRIES", 3)
    found = inspected(tmp_path / "b", HOSTILE)
    assert found.examined is None
    assert re.search(r"dynamics are left out: the state has \d+ numbers, more than 3$", found.omission)
    assert "gradient" not in summary.as_json(found)
    assert report.render(found)


def test_fewer_tokens_are_read_where_there_are_very_many_units(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "VALUES", 1)
    assert len(inspected(tmp_path / "m", HOSTILE).reading.ids_T) == 64
