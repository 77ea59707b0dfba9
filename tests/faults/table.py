"""All faults, tried one after the other: prints a table, and writes it into docs/reliability.md.

Run it as `make faults`.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch

from faults import damages, runs, trials
from faults.jobs import MODELS, STORE, TEXTS, some_checkpoints
from faults.trials import Trial
from throughtime.machine import processor, usable_threads

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- written by the script: begin -->", "<!-- written by the script: end -->"


class Fault(NamedTuple):
    name: str
    trials: Iterable[Trial]


class Row(NamedTuple):
    fault: str
    tries: int
    lost: int


def faults(folder: Path, thorough: bool = True) -> Iterator[Fault]:
    """Every fault and its trials.

    Args:
        folder: where what is recorded may lie.
        thorough: with more power cuts and damages, and what only root can do.
    """
    store = [trials.record(job, folder) for job in STORE]
    models = [trials.record(job, folder) for job in MODELS]
    texts = [trials.record(job, folder) for job in TEXTS]
    some = folder / "some"
    some_checkpoints(some)
    seeds, tries = (4, 420) if thorough else (2, 84)
    losing = ("all", "names", "data") if thorough else ("all",)
    yield Fault("SIGKILL while a checkpoint is written", chain(*map(trials.by_kill, store)))
    yield Fault("SIGKILL while a model or an output is saved", chain(*map(trials.by_kill, models)))
    yield Fault("SIGKILL while a text is tokenised", chain(*map(trials.by_kill, texts)))
    yield Fault(
        "the power goes while a checkpoint is written", chain(*(trials.by_power_cut(found, seeds) for found in store))
    )
    yield Fault(
        "the power goes while a model or an output is saved",
        chain(*(trials.by_power_cut(found, seeds) for found in models)),
    )
    yield Fault(
        "the power goes while a text is tokenised", chain(*(trials.by_power_cut(found, seeds) for found in texts))
    )
    yield Fault(
        "SIGKILL, the next write, and then the power goes",
        chain(*(trials.by_kill_and_power_cut(found, losing) for found in store + models + texts)),
    )
    for name, code in (("is full (ENOSPC)", errno.ENOSPC), ("fails (EIO)", errno.EIO)):
        yield Fault(
            f"the disk {name} at an operation",
            chain(*(trials.by_error(found, code) for found in store + models + texts)),
        )
    yield Fault("a file may not grow so large", damages.by_full_disk(some))
    if thorough and damages.mounted(some):
        subprocess.run(["umount", str(some)], check=True)
        yield Fault("a file system has so many blocks left", damages.by_full_file_system())
    yield Fault("the folder may not be written", damages.by_read_only_folder(some))
    yield Fault("a file of the newest checkpoint is damaged", damages.by_damage(some, tries))
    yield Fault("`last` is damaged", damages.by_damaged_pointer(some, tries // 12))
    yield Fault("the clock goes back", damages.by_clock(some, tries // 12))
    yield Fault("a second training in the folder", damages.by_second_training())
    yield Fault("SIGKILL of a training, twice", runs.by_kill_of_training(folder, 100 if thorough else 4))
    if thorough:
        yield Fault("SIGKILL of `throughtime train` again and again", runs.by_kill_of_command(folder, 6))
        yield Fault("SIGKILL of one of two processes, of both with torchrun", runs.by_kill_of_processes(folder, 6))


def tried(fault: Fault, folder: Path) -> Row:
    """Try all of a fault; what is lost is told on standard error."""
    tries = lost = 0
    for trial in fault.trials:
        tries += 1
        try:
            trial.run(folder / "trial")
        except Exception:
            lost += 1
            print(f"LOST: {fault.name}, {trial.name}", file=sys.stderr)
            traceback.print_exc()
        for left in folder.iterdir():
            shutil.rmtree(left)
    return Row(fault.name, tries, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to try; default: the system's folder for temporary files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as recordings,
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
    ):
        os.environ["THROUGHTIME_CACHE"] = str(Path(recordings, "cache"))
        for fault in faults(Path(recordings)):
            rows.append(tried(fault, Path(folder)))
            print(*rows[-1], sep="\t", flush=True)
    _publish(rows, time.perf_counter() - began)
    sys.exit(any(row.lost for row in rows))


def _publish(rows: list[Row], seconds: float) -> None:
    whole = [*rows, Row("all", sum(row.tries for row in rows), sum(row.lost for row in rows))]
    table = ["| fault | tries | lost |", "| --- | ---: | ---: |"]
    table += [f"| {row.fault} | {row.tries:,} | {row.lost} |" for row in whole]
    command = shlex.join(["python", "tests/faults/table.py", *sys.argv[1:]]) if sys.argv[1:] else "make faults"
    made = f"Made by `{command}` in {seconds / 60:.0f} minutes on {processor()[0]}, {usable_threads()} cores."
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + "\n".join([BEGIN, "", *table, "", made, "", END]) + after, "utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
