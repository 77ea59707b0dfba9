"""What validation costs a training, and how far its estimates are from the exact figures.

Three models, over characters, byte pairs and words, are trained for some minutes, with ten validations asked for. After
a few steps, and at the end, the validation text is measured in four ways: by a plain pass of the lanes from the initial
state, by the estimate that training uses, exactly, and by one lane; each is timed, in turn.

Writes docs/benchmarks/validation.json and validation.md. Trainings found in the JSON file are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import throughtime
from throughtime import engine
from throughtime.machine import usable_threads
from throughtime.models.saved import load_model
from throughtime.objective import evaluation
from throughtime.recipe import build
from throughtime.streams.evaluation import EvaluationLanes
from throughtime.text.dataset import prepare
from throughtime.training.checkpoint import Checkpoints
from throughtime.training.predictor import TorchPredictor
from throughtime.training.resume import CHECKPOINTS
from timing import PAGES, ROOT, command, machine, table

TEXTS = ROOT.parent / "shared" / "data" / "text"
TRAINED_ON = ["shakespeare.txt", "war-and-peace.train.txt", "wikitext-2.test.txt"]
VALIDATED_ON = "war-and-peace.valid.txt"
EARLY = 20
"""Steps after which a model is hardly trained."""
KINDS: dict[str, dict[str, Any]] = {
    "characters": {
        "text": {"tokens": "char"},
        "streams": {"lanes": 64, "window": 64},
        "model": {"cell": "lstm", "hidden_size": 512},
    },
    "byte pairs": {
        "text": {"tokens": "bpe", "vocabulary_size": 4096},
        "streams": {"lanes": 64, "window": 64},
        "model": {"cell": "gru", "hidden_size": 512, "tied": True, "dropout": 0.2, "precision": "bf16"},
    },
    "words": {
        "text": {"tokens": "word", "vocabulary_size": 9893},
        "streams": {"lanes": 64, "window": 35},
        "model": {
            "cell": "lstm",
            "hidden_size": 512,
            "layers": 2,
            "tied": True,
            "dropout": 0.5,
            "precision": "bf16",
        },
    },
}


def main() -> None:
    options = _options()
    if engine.level() is None:
        sys.exit("there are no native kernels here to measure; see `throughtime doctor`")
    path = options.out / "validation.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"trainings": {}}
    found |= {"command": command(), "machine": machine(), "engine": engine.describe()}
    for minutes in options.minutes:
        for kind in options.kinds:
            name = f"{kind}, {minutes:g} minutes"
            if name not in found["trainings"]:
                found["trainings"][name] = _measured(kind, minutes, options.threads)
                print(f"{name}: {found['trainings'][name]}", flush=True)
                path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (options.out / "validation.md").write_text("\n".join(_page(found)) + "\n", "utf-8")
    print(f"written: {options.out / 'validation.md'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0, 5.0, 30.0], help="of each training")
    parser.add_argument("--threads", type=int, default=usable_threads(), help="of each training")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    options = parser.parse_args()
    for name in (*TRAINED_ON, VALIDATED_ON):
        if not (TEXTS / name).is_file():
            sys.exit(f"there is no text {TEXTS / name}")
    return options


def _measured(kind: str, minutes: float, threads: int) -> dict[str, Any]:
    """A training by the clock: the share of its time that was training; and how its model is measured at the end."""
    with tempfile.TemporaryDirectory() as name:
        early = throughtime.train(_recipe(kind, steps=EARLY, validations=1, threads=threads), Path(name) / "early")
        result = throughtime.train(_recipe(kind, minutes=minutes, threads=threads), Path(name) / "run")
        newest = Checkpoints(result.folder / CHECKPOINTS, 1, 0).newest().checkpoint
        assert newest is not None
        told = newest.facts["watch"]["validations"]
        last = told["seconds"] / told["count"]  # stands behind the budget
        return {
            "threads": threads,
            "steps": result.steps,
            "validations": told["count"],
            "tokens validated": told["tokens"],
            "seconds": newest.facts["seconds"] + last,
            "seconds of validations": told["seconds"],
            "early": _ways(kind, early.folder),
            "late": _ways(kind, result.folder),
        }


def _recipe(kind: str, **training: Any) -> dict[str, Any]:
    settings = KINDS[kind]
    text = {"sources": [str(TEXTS / name) for name in TRAINED_ON], "valid": [str(TEXTS / VALIDATED_ON)]}
    return {**settings, "text": {**text, **settings["text"]}, "training": training}


def _ways(kind: str, folder: Path) -> dict[str, Any]:
    """The last model of a run on the validation text: figures and seconds of each way to measure it."""
    ids = prepare(build(_recipe(kind, steps=1)).text).valid
    assert ids is not None
    model = TorchPredictor(load_model(folder / "last", _vocabulary(folder)))
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: _plain(model, ids),
        "estimate": lambda: evaluation.estimate(model, ids),
        "exact": lambda: evaluation.evaluate(model, ids),
        "one lane": lambda: evaluation.evaluate(model, ids, 1),
    }
    found: dict[str, Any] = {"tokens": len(ids) - 1}
    for way, measured in ways.items():
        began = time.perf_counter()
        figure = measured()
        seconds = time.perf_counter() - began
        nats = figure if isinstance(figure, float) else figure.nats_per_token
        found[way] = {"nats": nats, "seconds": seconds}
        if way == "exact":
            found["reading"] = figure.reading
    return found


def _vocabulary(folder: Path) -> int:
    size: int = json.loads((folder / "last" / "model.json").read_text("utf-8"))["vocabulary_size"]
    return size


def _plain(model: TorchPredictor, ids: Any) -> float:
    """Nats per token of the lanes, each from the initial state."""
    layout = EvaluationLanes(ids, evaluation.MOST_LANES, evaluation.WINDOW)
    return evaluation.read_once(model, layout, model.initial_state(layout.lanes)) / layout.predictions


def _page(found: dict[str, Any]) -> list[str]:
    shares, ways = [], []
    for name, run in found["trainings"].items():
        share = 1 - run["seconds of validations"] / run["seconds"]
        part = run["tokens validated"] / run["late"]["tokens"]
        shares.append(
            [
                name,
                str(run["threads"]),
                f"{run['steps']:,}",
                f"{run['validations']} of 10",
                f"{part:.0%}",
                f"{share:.1%}",
            ]
        )
        for when in ("early", "late"):
            told = run[when]
            exact, plain = told["exact"]["nats"], told["plain"]["seconds"]
            apart = [f"{told[way]['nats'] / exact - 1:+.1e}" for way in ("plain", "estimate", "one lane")]
            times = [f"{told[way]['seconds'] / plain:.2f}" for way in ("estimate", "exact", "one lane")]
            ways.append([f"{name}, {when}", f"{exact:.4f}", *apart, told["reading"], *times])
    return [
        "# Validation",
        "",
        "How much of a training is training, and what the estimates of its validations are worth. The model over",
        "characters is an LSTM of 512 units, the one over byte pairs a GRU of 512 units with a vocabulary of 4,096 in",
        "bf16, the one over words two LSTM layers of 512 units with a vocabulary of 9,893 in bf16. They are trained on",
        f"{', '.join(TRAINED_ON)} and validated on {VALIDATED_ON}; ten validations are asked for.",
        "",
        *table(["training", "threads", "steps", "validations", "of the text", "share that is training"], shares),
        "",
        "Each model, after 20 steps (early) and at the end (late), was measured on the whole validation text: by a",
        "plain pass (lanes from the initial state), by the estimate that training uses (lanes with a warm-up), exactly",
        "(`evaluate`), and exactly by one lane. Differences are relative to the exact figure, times to that of a plain",
        "pass.",
        "",
        *table(
            [
                "model",
                "nats per token",
                "plain",
                "estimate",
                "one lane",
                "exact: read in",
                "time: estimate",
                "exact",
                "one lane",
            ],
            ways,
        ),
        "",
        f"Engine: {found['engine']}. All figures: [validation.json](validation.json).",
        "",
        f"Made by `{found['command']}` on {found['machine']}.",
    ]


if __name__ == "__main__":
    main()
