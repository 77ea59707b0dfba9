"""What is odd about texts, said in lines: a few for each kind of finding, however many texts have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from throughtime.untrusted import printable

SHOWN = 3
"""Texts that are named for one kind of finding; the others are counted."""


class Finding(NamedTuple):
    """Something about one text."""

    name: str
    """The text, as its user named it."""
    kind: str
    """The same for findings of one kind."""
    line: str
    """What is said, without the name."""


def lines(findings: Iterable[Finding]) -> tuple[str, ...]:
    """A line for each finding; of the same kind at most SHOWN, and one that counts the rest."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.kind, []).append(finding)
    said = []
    for same in found.values():
        said += [f"{printable(name)} {line}" for name, _, line in same[:SHOWN]]
        if len(same) > SHOWN:
            said.append(f"the same holds for {len(same) - SHOWN:,} more, such as {printable(same[SHOWN].name)}")
    return tuple(said)
