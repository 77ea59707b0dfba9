"""The journal of a run: one JSON object a line, written as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """Appends entries to `journal.jsonl`; each has an `event` and the facts of it."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, event: str, **facts: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")

    def read(self, event: str) -> Iterator[dict[str, Any]]:
        """The entries of one kind, in order."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                if entry["event"] == event:
                    yield entry
