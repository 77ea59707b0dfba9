"""The report: one HTML file that holds its data, its style and its script, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from throughtime import folder as folders
from throughtime.errors import ThroughtimeError
from throughtime.probe.inspection import Inspected
from throughtime.probe.report.dynamics import dynamics
from throughtime.probe.report.figures import Part, as_json
from throughtime.probe.report.past import past
from throughtime.probe.report.step import step
from throughtime.probe.report.text import pieces, text, units
from throughtime.probe.report.training import training
from throughtime.training.journal import Entries, Journal
from throughtime.untrusted import open_regular, printable
from throughtime.version import VERSION

SCRIPTS = ("theme.js", "charts.js", "text.js", "main.js")
MARK = "<!doctype html>\n<!-- throughtime report -->\n"
"""What every report begins with."""


def is_report(path: Path) -> bool:
    """Whether a file is a report that may be written anew."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(len(MARK)) == MARK.encode()


def render(found: Inspected) -> str:
    """The report as HTML."""
    model, tokenizer = found.loaded.model, found.loaded.tokenizer
    settings = model.settings
    each = " each" if isinstance(settings.hidden_size, int) else ""
    title = printable(folders.find(found.loaded.folder).home.resolve().name)
    data = {
        "title": title,
        "about": (
            f"{settings.layers} layer{'s' if settings.layers > 1 else ''} of {settings.cell}, "
            f"{settings.units} units{each}, {sum(p.numel() for p in model.parameters()):,} parameters, "
            f"{tokenizer.vocabulary_size:,} {tokenizer.kind} tokens. "
            f"It read {len(found.reading.ids_T):,} of {found.length:,} tokens of {printable(found.text)}."
        ),
        "facts": _facts(found),
        "text": text(found),
        "units": units(found),
        "parts": [as_json(part) for part in _parts(found)],
        "foot": f"Made by throughtime {VERSION}. This file loads nothing and sends nothing.",
    }
    page = resources.files("throughtime.probe.report") / "page"
    style = (page / "report.css").read_text("utf-8")
    script = "\n".join((page / name).read_text("utf-8") for name in SCRIPTS)
    policy = f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
    return Template((page / "report.html").read_text("utf-8")).substitute(
        title=_escaped(title), policy=policy + "; base-uri 'none'; form-action 'none'", style=style, script=script,
        data=_data(data),
    )  # fmt: skip


def journal_of(found: Inspected) -> Entries | None:
    """What the journal of the run says, and what is wrong with it; None for a model folder outside its run."""
    path = folders.find(found.loaded.folder).home / folders.JOURNAL
    try:
        return Journal(path).entries() if path.exists() else None
    except ThroughtimeError as error:
        entries = Entries()
        entries.notes.append(str(error))
        return entries


def _facts(found: Inspected) -> list[tuple[str, str]]:
    """Names and values that stand out."""
    kind = found.loaded.tokenizer.kind
    return [
        (f"bits per {kind}", f"{found.bits_per_token:.3f}"),
        (f"perplexity per {kind}", f"{found.perplexity:.3g}"),
        ("tokens back hold nine tenths of what it depends on", str(found.reach)),
        *([("when the text stops", found.examined.alone.verdict)] if found.examined else []),
    ]


def _parts(found: Inspected) -> list[Part]:
    """The pictures, in the order in which they are read."""
    examined = found.examined
    journal = journal_of(found)
    trained = training(journal) if journal else None
    parts = [past(found.dependence_K, examined, found.window)]
    if examined is not None:
        read = pieces(found, len(examined.states_TN) - 1)
        parts += [step(examined.layers), dynamics(examined, found.paths_TBN, read)]
    return [*parts, trained] if trained else parts


def _data(data: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _hash(code: str) -> str:
    """How a content security policy names the only code it lets run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
