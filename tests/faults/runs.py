"""Whole trainings that are killed and go on, as trials: they come out as one that nothing ended, to the last bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from faults.children import Kill, dying, in_child, killed, kills
from faults.trials import Trial, nothing_went_past
from faults.watching import recorded
from helpers import workers_of
from throughtime.durable import PARTIAL
from throughtime.folder import DESCRIPTION, RECIPE, TOKENIZER, WEIGHTS
from throughtime.training.card import CARD, is_ended
from throughtime.training.checkpoint import LAST
from throughtime.training.train import resume, train

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 30
SETTINGS: dict[str, dict[str, Any]] = {
    "streams": {"lanes": 3, "window": 8},
    "model": {"cell": "lstm", "hidden_size": 8, "dropout": 0.2},
    "training": {"steps": 24, "validations": 3, "sample_tokens": 5, "threads": 1, "checkpoint_every": 5},
}
LONGER = {"steps": 600, "checkpoint_every": 9, "validations": 20}
"""For a command, which takes its time to start."""


def by_kill_of_training(folder: Path, tries: int) -> Iterator[Trial]:
    """SIGKILL at any operation of a training, then at any of the one that goes on."""
    tree = {**SETTINGS, "text": {"sources": [str(_text(folder))]}}
    before, uncut = folder / "before-uncut", folder / "uncut"
    before.mkdir()
    uncut.mkdir()
    operations = recorded(uncut, lambda: train(tree, uncut / "run"))
    nothing_went_past(before, operations, uncut)
    places, wanted = kills(operations), _outcome(uncut / "run")

    def run(first: Kill, second: Kill, place: Path) -> None:
        place.mkdir()
        killed(place, lambda: _begin_or_go_on(tree, place / "run"), first)
        in_child(lambda: dying(place, lambda: _begin_or_go_on(tree, place / "run"), second))
        _begin_or_go_on(tree, place / "run")
        assert _outcome(place / "run") == wanted

    random = Random(0)
    for number in range(tries):
        first, second = random.choices(places, k=2)
        yield Trial(f"{number}: {first.phase} {first.at}, {second.phase} {second.at}", partial(run, first, second))


def by_kill_of_command(folder: Path, tries: int) -> Iterator[Trial]:
    """SIGKILL at any moment of `throughtime train`, and of each that goes on, until one comes to its end."""
    seconds = 0.0

    def ended(arguments: list[str], _: Path, random: Random | None) -> bool:
        nonlocal seconds
        began = time.monotonic()
        whole = _ended(arguments, seconds * random.uniform(0.3, 1) if random else None)
        if random is None:
            seconds = time.monotonic() - began
        return whole

    yield from _until_one_ends(folder, "uncut-command", tries, ended)


def by_kill_of_processes(folder: Path, tries: int) -> Iterator[Trial]:
    """SIGKILL of any of two processes at any moment, which torchrun begins again; and of all of them with torchrun."""
    yield from _until_one_ends(folder, "uncut-processes", tries, _ended_with_kills)


def _until_one_ends(
    folder: Path, name: str, tries: int, ended: Callable[[list[str], Path, Random | None], bool]
) -> Iterator[Trial]:
    """Commands that are killed, and go on, until one has come to its end: as one that nothing ended.

    Args:
        folder: for the text and for the run that nothing ends.
        name: of that run.
        tries: how many.
        ended: runs the command with its arguments in its run folder, and says whether it came to its end; with random
            numbers it is killed, without it is not.
    """
    tree = {**SETTINGS, "training": SETTINGS["training"] | LONGER}
    assignments = [f"--set={part}.{key}={value}" for part, values in tree.items() for key, value in values.items()]
    begin = [str(_text(folder)), *assignments]
    uncut = folder / name / "run"
    uncut.parent.mkdir()
    assert ended([*begin, f"--out={uncut}"], uncut, None)
    wanted = _outcome(uncut)

    def run(seed: int, place: Path) -> None:
        random = Random(seed)
        place.mkdir()
        out = f"--out={place / 'run'}"
        arguments = [*begin, out]
        while not (ended(arguments, place / "run", random) or is_ended(place / "run")):
            arguments = ["--resume", out] if (place / "run" / RECIPE).exists() else arguments
        assert _outcome(place / "run") == wanted

    yield from (Trial(f"moments {seed}", partial(run, seed)) for seed in range(tries))


def _text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text(TEXT)
    return path


def _begin_or_go_on(tree: dict[str, Any], run: Path) -> None:
    """What a user would do who finds the run as it is: nothing where it has its card."""
    if not (run / RECIPE).exists():
        train(tree, run)
    elif not is_ended(run):
        resume(run)


def _ended(arguments: list[str], seconds: float | None) -> bool:
    """Whether the command came to its end, before it was killed after so many seconds."""
    command = [sys.executable, "-m", "throughtime", "train", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
    assert process.returncode == 0, said
    return True


def _ended_with_kills(arguments: list[str], run: Path, random: Random | None) -> bool:
    """Whether a training in two processes came to its end. First one of them is killed, twice, then sometimes all."""
    command = [sys.executable, "-m", "throughtime", "train", "--processes=2", *arguments]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as torchrun,
    ):
        for kill in ("one", "one", "all") if random else ():
            _wait_for_a_checkpoint(run, torchrun)
            time.sleep(random.uniform(0, 1))
            if torchrun.poll() is None and kill == "all" and random.random() < 0.5:
                torchrun.kill()  # first, or it would begin the others again
                for worker in workers_of(run).values():
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                return False
            found = workers_of(run)
            if kill == "one" and len(found) == 2:
                with suppress(ProcessLookupError):
                    os.kill(found[random.randrange(2)], signal.SIGKILL)
        code = torchrun.wait()
        said.seek(0)
        told = said.read()
    # One that was killed at the end is begun again, and finds that there is nothing left to do.
    assert code == 0 or is_ended(run), told
    return True


def _wait_for_a_checkpoint(run: Path, torchrun: subprocess.Popen[bytes]) -> None:
    """Until one is written that was not there."""
    last = run / "checkpoints" / LAST
    before = last.read_text() if last.exists() else None
    while torchrun.poll() is None and (not last.exists() or last.read_text() == before):
        time.sleep(0.01)


def _outcome(run: Path) -> list[Any]:
    """All that a run comes to, less times and its place."""
    left = [path for path in run.rglob("*") if path.name.endswith(PARTIAL)]
    assert not left, left
    entries = [json.loads(line) for line in (run / "journal.jsonl").read_text("utf-8").splitlines()]
    for entry in entries:
        for clock in ("seconds", "tokens_per_second"):
            entry.pop(clock, None)
    files = [(run / name / file).read_bytes() for name in ("best", "last") for file in (WEIGHTS, DESCRIPTION)]
    files += [(run / name).read_bytes() for name in (RECIPE, TOKENIZER, "curve.svg")]
    card = re.sub(r" in [0-9,]+ s ", " in N s ", (run / CARD).read_text("utf-8")).replace(str(run), "RUN")
    return [*entries, *files, card]
