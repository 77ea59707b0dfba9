"""Random or sequential minibatches? The same tokens of Tiny Shakespeare, with windows short and long."""

from __future__ import annotations

from typing import Any

from common import arguments, figure, outcome, publish, spread, table

PARTITIONS = ("random", "sequential")
WINDOWS = (8, 32, 128)
TOKENS_A_MINIBATCH = 2048


def recipe(partition: str, window: int, seed: int, options: Any) -> dict[str, Any]:
    """Windows differ in length, minibatches in lanes; the tokens in each, and so the steps, are the same."""
    return {
        "text": {"sources": [str(options.data / "text" / "shakespeare.txt")], "split": [0.9, 0.05, 0.05]},
        "streams": {"partition": partition, "window": window, "lanes": TOKENS_A_MINIBATCH // window},
        "model": {"cell": "lstm", "hidden_size": 256},
        "training": {"steps": options.steps, "seed": seed, "sample_tokens": 0, "validations": 5},
    }


def main() -> None:
    options = arguments(__doc__, steps=1500, seeds=3)
    found = {
        (window, partition): [
            outcome(f"partition/{partition}-{window}-{seed}-{options.steps}", recipe(partition, window, seed, options))[
                "bits_per_byte"
            ]
            for seed in range(options.seeds)
        ]
        for window in WINDOWS
        for partition in PARTITIONS
    }
    rows = []
    for window in WINDOWS:
        random, sequential = (found[window, partition] for partition in PARTITIONS)
        differences = [r - s for r, s in zip(random, sequential, strict=True)]
        rows.append([f"{window}", spread(random), spread(sequential), spread(differences)])
    _draw(found)
    lines = [
        *table(["window", "random", "sequential", "random - sequential, seed by seed"], rows),
        "",
        f"Bits per byte of the test split (state carried through it), mean ± standard deviation over {options.seeds} "
        f"seeds; {options.steps:,} steps of {TOKENS_A_MINIBATCH:,} characters each.",
        "",
        "![bits per byte by window and partition](partition.svg)",
    ]
    publish("partition", lines)


def _draw(found: dict[tuple[int, str], list[float]]) -> None:
    styles = {"random": ("#d55e00", "s", -0.08), "sequential": ("#0072b2", "^", 0.08)}
    with figure("partition", "window, characters", "bits per byte, test split") as axes:
        for (window, partition), values in found.items():
            colour, marker, shift = styles[partition]
            place, label = WINDOWS.index(window), partition if window == WINDOWS[0] else None
            axes.plot([place + shift] * len(values), values, marker, color=colour, label=label)
        axes.set_xticks(range(len(WINDOWS)), [str(window) for window in WINDOWS])


if __name__ == "__main__":
    main()
