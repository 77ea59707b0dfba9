"""Short trainings that must come out the same, to the last bit, after every change that is not meant to change them.

    python tests/golden/runs.py BEFORE.json                       # with the old source on PYTHONPATH
    python tests/golden/runs.py AFTER.json --compare BEFORE.json  # with the new one

Every way to cut the text and every truncation is trained, with dropout, weight drop and documents, by one process and
by two. The losses in the journal and a digest of the last weights are recorded. They belong to one kind of machine and
to one number of threads, so the files are compared where they were made and are not kept in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "sequential, fixed": {"gradient": {"truncation": "fixed"}},
    "sequential, fixed, reach": {"gradient": {"truncation": "fixed", "reach": 40}},
    "sequential, variable, normal": {"gradient": {"truncation": "variable"}},
    "sequential, variable, geometric": {"gradient": {"truncation": "variable", "lengths": "geometric"}},
    "sequential, random": {"gradient": {"truncation": "random", "cut": 0.08, "cut_end": 0.04}},
    "sequential, none": {"gradient": {"truncation": "none"}, "training": {"steps": 12}},
    "random, fixed": {"streams": {"partition": "random"}},
    "random, random": {"streams": {"partition": "random"}, "gradient": {"truncation": "random"}},
    "gru in bf16, signs": {
        "model": {"cell": "gru", "precision": "bf16", "tied": True, "weight_drop": 0.0, "recurrent_dropout": 0.2},
        "training": {"signs_every": 20},
    },
    "minlstm": {"model": {"cell": "minlstm", "weight_drop": 0.0}},
    "words, reference": {
        "text": {"tokens": "word", "vocabulary_size": 40},
        "model": {"cell": "elman", "engine": "reference"},
        "training": {"steps": 40},
    },
}
"""What each training sets apart from COMMON."""

COMMON: dict[str, dict[str, Any]] = {
    "text": {"separator": "\n\n"},
    "streams": {"lanes": 8, "window": 16},
    "model": {"hidden_size": 24, "layers": 2, "dropout": 0.2, "weight_drop": 0.3},
    "training": {"steps": 200, "validations": 3, "sample_tokens": 20, "threads": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="JSON file of another source")
    parser.add_argument("--only", default="", metavar="TEXT", help="trainings whose names have this in them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    found = {
        f"{name}, {processes} processes": _train(sections, processes, options.threads)
        for name, sections in SECTIONS.items()
        for processes in options.processes
        if options.only in f"{name}, {processes} processes"
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if options.compare is not None:
        _compare(json.loads(options.compare.read_text("utf-8")), found)


def _train(sections: dict[str, dict[str, Any]], processes: int, threads: int) -> dict[str, Any]:
    """Losses in the journal, the last validation and a digest of the last weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(_text(), "utf-8")
        settings = {key: {**values, **sections.get(key, {})} for key, values in COMMON.items()}
        settings["gradient"] = sections.get("gradient", {})
        settings["training"] = {**settings["training"], "threads": threads}
        assignments = [
            f"{section}.{key}={json.dumps(value)}"
            for section, values in settings.items()
            for key, value in values.items()
        ]
        command = [sys.executable, "-P", "-m", "throughtime", "train", str(folder / "text.txt")]
        command += ["--out", str(folder / "run"), "--processes", str(processes)]
        command += [word for assignment in assignments for word in ("--set", assignment)]
        subprocess.run(command, check=True, capture_output=True)
        lines = (folder / "run" / "journal.jsonl").read_text("utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return {
            "losses": [entry["nats_per_token"] for entry in entries if entry["event"] == "train"],
            "validations": [entry["valid"]["nats_per_token"] for entry in entries if entry["event"] == "valid"],
            "signs": [entry["layers"] for entry in entries if entry["event"] == "signs"],
            "weights": hashlib.sha256((folder / "run" / "last" / "model.safetensors").read_bytes()).hexdigest(),
        }


def _text() -> str:
    """Documents of made-up sentences, with a structure that a small network can learn in part."""
    draw = random.Random(1)
    words = ["".join(draw.choice("aeioklmnrst") for _ in range(draw.randint(2, 7))) for _ in range(60)]
    documents = []
    for _ in range(40):
        start = draw.randrange(60)
        said = [words[(start + step * step + draw.randrange(3)) % 60] for step in range(draw.randint(30, 120))]
        documents.append(" ".join(said) + ".")
    return "\n\n".join(documents)


def _compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    apart = [name for name in after if before.get(name) != after[name]]
    for name in apart:
        parts = [part for part in after[name] if before.get(name, {}).get(part) != after[name][part]]
        print(f"differs: {name}: {', '.join(parts)}")
    print(f"{len(after) - len(apart)} of {len(after)} trainings are the same to the last bit")
    sys.exit(bool(apart))


if __name__ == "__main__":
    main()
