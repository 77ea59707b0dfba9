"""Whole trainings: tokens a second, and the time to a validation loss, of this project and of PyTorch.

A GRU learns Tiny Shakespeare by characters, its last tenth being the validation text: by `throughtime.train` in float32
and bf16; as the same model written in PyTorch, on the same initial weights and minibatches; and by an equivalent of
PyTorch's example `word_language_model`. They train in turn, so many steps each, and are measured after every turn. Then
ours train from other seeds, in both precisions.

Writes docs/benchmarks/train.json and train.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import throughtime
from pipe import HERE, Child
from throughtime import engine
from timing import PAGES, PAUSE, ROOT, command, in_quartiles, machine, table
from trainings import CLIP, LANES, RATE, TRAININGS, WINDOW, recipe

OURS, PYTORCH, EXAMPLE = "throughtime", "PyTorch", "word_language_model"
ROWS = 10
"""Of the table of losses."""
QUICK = {"hidden": 8, "steps": 8, "turn": 4, "seeds": 1}


def main() -> None:
    options = _options()
    if engine.level() is None:
        sys.exit("there are no native kernels here to measure; see `throughtime doctor`")
    found = {
        "command": command(),
        "machine": machine(),
        "engine": engine.describe(),
        "versions": {"Python": sys.version.split()[0], "PyTorch": torch.__version__},
        **{name: getattr(options, name) for name in ("hidden", "steps", "turn", "target")},
        "turns": _trained(options),
        "seeds": {},
    }
    for precision in ("float32", "bf16"):
        others = [_loss(options, precision, seed) for seed in range(1, options.seeds)]
        found["seeds"][precision] = [found["turns"][f"{OURS} {precision}"][-1]["nats"], *others]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "train.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (options.out / "train.md").write_text("\n".join(_page(found)) + "\n", "utf-8")
    print(f"written: {options.out / 'train.md'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = ROOT.parent / "shared" / "data" / "text" / "shakespeare.txt"
    parser.add_argument("--text", type=Path, default=text)
    parser.add_argument("--hidden", type=int, default=512, help="units (default: 512)")
    parser.add_argument("--steps", type=int, default=2000, help="default: 2000")
    parser.add_argument("--turn", type=int, default=100, help="steps of a turn (default: 100)")
    parser.add_argument("--seeds", type=int, default=3, help="for the losses in both precisions (default: 3)")
    parser.add_argument("--target", type=float, default=1.55, help="validation loss in nats (default: 1.55)")
    parser.add_argument("--quick", action="store_true", help="a few steps of a small model: does it run?")
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args()
    if not options.text.is_file():
        sys.exit(f"there is no text {options.text}; name it with --text")
    if options.steps % options.turn:
        sys.exit(f"--steps must be a multiple of --turn ({options.turn}), got {options.steps}")
    return options


def _trained(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What each training answered in each turn."""
    turns = options.steps // options.turn
    given = [str(options.text.resolve()), *map(str, (options.hidden, options.steps, turns))]
    children = {name: Child([sys.executable, str(HERE / "trainings.py"), name, *given]) for name in TRAININGS}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in TRAININGS}
    for turn in range(1, turns + 1):
        for name, child in children.items():
            time.sleep(PAUSE)
            answers[name].append(child.ask(tokens=turn * options.turn * LANES * WINDOW))
        told = (f"{name} {_pace(answers[name][-1]):,.0f} ({answers[name][-1]['nats']:.4f})" for name in TRAININGS)
        print(f"turn {turn} of {turns}, tokens/s (validation nats): {', '.join(told)}", flush=True)
    for child in children.values():
        child.close()
    return answers


def _loss(options: argparse.Namespace, precision: str, seed: int) -> float:
    """The validation loss after all steps from a seed."""
    print(f"seed {seed}, {precision}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = recipe(options.text, options.hidden, options.steps, 1, precision, seed)
        measure = throughtime.train(settings, Path(folder, "run")).measure
    assert measure
    return measure.score


def _pace(answer: dict[str, Any]) -> float:
    """Tokens a second."""
    pace: float = answer["timed"] / answer["seconds"]
    return pace


def _page(found: dict[str, Any]) -> list[str]:
    turns, target = found["turns"], found["target"]
    paces = {name: [_pace(answer) for answer in answers] for name, answers in turns.items()}
    waits = {name: _seconds_to(target, answers) for name, answers in turns.items()}
    rows = []
    for name, pace in paces.items():
        ratios = [
            in_quartiles([ours / theirs for ours, theirs in zip(pace, paces[other], strict=True)], ".2f", "x")
            for other in (PYTORCH, EXAMPLE)
        ]
        wait, other = waits[name], waits[PYTORCH]
        row = [name, f"{statistics.median(pace):,.0f}", *ratios, "not reached" if wait is None else f"{wait:,.0f} s"]
        rows.append([*row, f"{other / wait:.2f}x" if wait and other else ""])
    header = ["", "tokens/s", f"beside {PYTORCH}", f"beside {EXAMPLE}", f"to {target:g} nats", f"beside {PYTORCH}"]
    versions = ", ".join(f"{library} {version}" for library, version in found["versions"].items())
    return [
        "# A training",
        "",
        f"Tiny Shakespeare by characters, its last tenth for validation; a GRU of {found['hidden']} units,",
        f"{LANES} lanes of {WINDOW} characters, the state carried, Adam at a rate of {RATE:g}, clipping at {CLIP:g}.",
        "",
        "- **throughtime** is `throughtime.train`.",
        "- **PyTorch** is the same as one writes it in PyTorch (`nn.Embedding`, `nn.GRU`, `nn.Linear`), from our",
        "  initial weights on the same minibatches, in float32. `nn.GRU` has a bias more, which learns too. (Under",
        "  `torch.autocast` to bf16, `nn.GRU` would go on in float32.)",
        f"- **{EXAMPLE}** is not PyTorch's example of that name but an equivalent, written anew, of what its",
        "  `main.py` does with a GRU of this size, without dropout, and else by its defaults: 20 lanes of 35 tokens,",
        "  gradient descent at a rate of 20, clipping at 0.25.",
        "",
        f"They train in turn, {found['turn']} steps each (the example as many tokens), and are measured after each",
        "turn by the same function, on the whole validation text with the state carried. Speeds are medians over",
        "turns, ratios medians over the ratios of each turn, in brackets between what lies their middle half; above",
        f"1x is faster. The time to {target:g} nats is that of training alone, without validation.",
        "",
        *table(header, rows),
        "",
        "## Losses after the same tokens",
        "",
        *_losses(turns),
        "",
        "## float32 and bf16, seed by seed",
        "",
        *_seeds(found["seeds"]),
        "",
        f"Ours, nats per character of the validation text after {found['steps']:,} steps.",
        "",
        f"Engine: {found['engine']}; {versions}. All figures: [train.json](train.json).",
        "",
        f"Made by `{found['command']}` on {found['machine']}.",
    ]


def _losses(turns: dict[str, list[dict[str, Any]]]) -> list[str]:
    """At evenly spaced turns, the last among them."""
    last = len(turns[PYTORCH]) - 1
    every = -(-(last + 1) // ROWS)
    rows = []
    for turn in range(last % every, last + 1, every):
        nats = {name: answers[turn]["nats"] for name, answers in turns.items()}
        apart = f"{nats[f'{OURS} float32'] / nats[PYTORCH] - 1:+.2%}"
        rows.append([f"{turns[PYTORCH][turn]['tokens']:,}", *(f"{value:.4f}" for value in nats.values()), apart])
    header = ["tokens", *turns, f"{OURS} float32 beside {PYTORCH}"]
    return [*table(header, rows), "", "Nats per character of the validation text."]


def _seeds(seeds: dict[str, list[float]]) -> list[str]:
    rows = []
    for seed, (exact, rounded) in enumerate(zip(seeds["float32"], seeds["bf16"], strict=True)):
        rows.append([f"{seed}", f"{exact:.4f}", f"{rounded:.4f}", f"{rounded / exact - 1:+.2%}"])
    return table(["seed", "float32", "bf16", "bf16 beside float32"], rows)


def _seconds_to(target: float, answers: list[dict[str, Any]]) -> float | None:
    """Seconds of training until the loss was reached, on a line between two measurements; None where it was not."""
    seconds, before = 0.0, math.inf
    tokens = 0
    for answer in answers:
        nats = float(answer["nats"])
        took: float = (answer["tokens"] - tokens) / _pace(answer)
        if nats <= target:
            share = (before - target) / (before - nats) if before < math.inf else 1.0
            return seconds + took * share
        seconds, before = seconds + took, nats
        tokens = answer["tokens"]
    return None


if __name__ == "__main__":
    main()
