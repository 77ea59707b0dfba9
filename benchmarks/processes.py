"""One training in several processes: what sharing costs on one machine, and what is to be expected of several.

Two processes of one thread take turns with one process of two threads. For more machines a synchronous update is
simulated: every machine takes a step time drawn from those that were measured here, the slowest is waited for, and the
gradients go round in a ring (2 (P - 1) / P times their bytes through each network card, 2 (P - 1) delays).

Writes docs/benchmarks/processes.json and processes.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import throughtime
from throughtime import recipe as recipes
from throughtime.machine import usable_threads
from throughtime.training.display import Display, Moment
from timing import PAGES, command, in_quartiles, machine, quartiles, table

SIZES = (256, 512, 1024)
LANES = 32
MACHINES = (1, 8, 100)
NETWORKS = {"1 Gbit/s": (125e6, 100e-6), "10 Gbit/s": (1.25e9, 50e-6)}
"""Bytes a second, and seconds of delay."""
DRAWS = 2000


class Clock(Display):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def say(self, line: str) -> None:
        pass

    def show(self, moment: Moment) -> None:  # noqa: ARG002
        self.ends.append(time.perf_counter())

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--steps", type=int, default=60, help="of each training (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of one process and two (default: 3)")
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {str(size): _measured(size, options, Path(folder)) for size in options.sizes}
    result = {"made_by": command(), "machine": machine(), "lanes": LANES, "steps": options.steps, "sizes": found}
    (options.out / "processes.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (options.out / "processes.md").write_text("\n".join(_page(result)) + "\n", "utf-8")
    print((options.out / "processes.md").read_text("utf-8"))


def _recipe(size: int, steps: int) -> recipes.Recipe:
    return recipes.build(
        {
            "text": {"sources": ["builtin"]},
            "streams": {"lanes": LANES},
            "model": {"cell": "gru", "hidden_size": size},
            "training": {"steps": steps, "validations": 1, "sample_tokens": 0, "signs_every": 0},
        }
    )


def _measured(size: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    recipe = _recipe(size, options.steps)
    paces: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(options.rounds):
        for processes in paces:
            run = folder / f"{size}-{turn}-{processes}"
            paces[processes].append(in_processes(recipe, processes, run)[0])
    clock = Clock()
    throughtime.train(recipe, folder / f"{size}-steps", clock)
    begin = json.loads((folder / f"{size}-steps" / "journal.jsonl").read_text("utf-8").splitlines()[0])
    return {
        "parameters": begin["parameters"],
        "tokens_per_second": {str(processes): found for processes, found in paces.items()},
        "step_milliseconds": [round(1e3 * value, 3) for value in np.diff(clock.ends[5:-1]).tolist()],
    }


def in_processes(recipe: recipes.Recipe, processes: int, run: Path) -> tuple[float, int]:
    """Tokens a second, median over the journal's entries but the first; most bytes that a process had in memory."""
    mine = run.with_suffix(".toml")
    mine.write_text(recipes.to_toml(recipe), "utf-8")
    threads = max(1, usable_threads() // processes)
    words = ["train", "--recipe", str(mine), "--out", str(run), f"--processes={processes}"]
    words += ["--set", f"training.threads={threads}"]
    with run.with_suffix(".log").open("w+") as log:
        child = subprocess.Popen([sys.executable, "-m", "throughtime", *words], stdout=log, stderr=log)
        _, code, usage = os.wait4(child.pid, 0)  # of all below it the largest
        child.returncode = os.waitstatus_to_exitcode(code)
        if child.returncode:
            sys.exit(run.with_suffix(".log").read_text("utf-8"))
    entries = map(json.loads, (run / "journal.jsonl").read_text("utf-8").splitlines())
    paces = [entry["tokens_per_second"] for entry in entries if entry["event"] == "train"]
    return float(np.median(paces[1:])), 1024 * usage.ru_maxrss


def _efficiency(facts: dict[str, Any], machines: int, network: str) -> float:
    """Of a simulated update: what a machine alone takes, by what all take together."""
    bandwidth, delay = NETWORKS[network]
    steps = np.array(facts["step_milliseconds"]) / 1e3
    slowest = np.random.default_rng(0).choice(steps, (DRAWS, machines)).max(1)
    ring = 2 * (machines - 1) * (4 * facts["parameters"] / machines / bandwidth + delay)
    return float(steps.mean() / (slowest + ring).mean())


def _page(result: dict[str, Any]) -> list[str]:
    beside, expected = [], []
    for size, facts in result["sizes"].items():
        one, two = (facts["tokens_per_second"][str(processes)] for processes in (1, 2))
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        figures = [f"{quartiles(found)[1]:,.0f}" for found in (one, two)]
        beside.append([size, f"{facts['parameters']:,}", *figures, in_quartiles(ratios, unit="x")])
        shares = [
            f"{100 * _efficiency(facts, machines, network):.0f} %" for network in NETWORKS for machines in MACHINES[1:]
        ]
        milliseconds = f"{np.mean(facts['step_milliseconds']):.1f}"
        expected.append([size, milliseconds, f"{4e-6 * facts['parameters']:.1f}", *shares])
    machines = [f"{count} machines, {network}" for network in NETWORKS for count in MACHINES[1:]]
    return [
        "# One training in several processes",
        "",
        *table(["units", "parameters", "1 process, tokens/s", "2 processes, tokens/s", "2 beside 1"], beside),
        "",
        f"A GRU over characters, {result['lanes']} lanes x 64 tokens; one process with all threads of the machine in "
        "turn with two that share them, medians over turns (quartiles of the ratio).",
        "",
        *table(["units", "ms a step", "MB of gradients", *machines], expected),
        "",
        f"Expected share of the speed of so many machines, each with {result['lanes']} lanes of its own: simulated "
        f"from the step times measured here, {DRAWS:,} updates.",
        "",
        f"Made by `{result['made_by']}` on {result['machine']}.",
    ]


if __name__ == "__main__":
    main()
