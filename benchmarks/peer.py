"""Contenders in processes of their own: those that need an environment of their own, and ours without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from pipe import Child
from timing import ROOT, Run


class Peer:
    """A child process that runs `peers/with_<kind>.py`.

    Args:
        name: what it is called on the page.
        kind: of its script. Where there are pins, `peers/<kind>.txt`, it runs in an environment made of them, in
            build/peers; else in this one.
    """

    def __init__(self, name: str, kind: str):
        self.name = name
        pins, folder = ROOT / "benchmarks" / "peers" / f"{kind}.txt", ROOT / "build" / "peers" / kind
        python, ready = folder / "bin" / "python", folder / "ready"
        if not pins.exists():
            python = Path(sys.executable)
        elif not ready.exists() or ready.read_text() != pins.read_text():
            print(f"installing {', '.join(pins.read_text().split())} into {folder.relative_to(ROOT)}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", pins], check=True)
            ready.write_text(pins.read_text())
        self.child = Child([str(python), "-m", f"peers.with_{kind}"])
        self.versions: dict[str, str] = self.child.ask(do="versions")["versions"]

    def prepare(self, name: str, **given: Any) -> list[float]:
        """Make a pass of that name ready: the norms of its results."""
        norms: list[float] = self.child.ask(do="prepare", name=name, given=given)["norms"]
        return norms

    def run(self, name: str) -> Run:
        """The pass of that name, as a contender."""

        def run(passes: int) -> float:
            seconds: float = self.child.ask(do="run", name=name, passes=passes)["seconds"]
            return seconds

        return run

    def forget(self) -> None:
        """No pass prepared so far is needed any more."""
        self.child.ask(do="forget")
