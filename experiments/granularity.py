"""Characters, byte pairs or words? The same minutes on War and Peace, compared by bits per byte."""

from __future__ import annotations

import statistics
from typing import Any

from common import arguments, figure, outcome, publish, spread, table

TOKENS: dict[str, dict[str, int]] = {
    "char": {},
    "bpe": {"vocabulary_size": 2048},
    "word": {"vocabulary_size": 8192},
}


def recipe(tokens: str, seed: int, options: Any) -> dict[str, Any]:
    """One network for all; what a token is decides the vocabulary alone."""
    text = options.data / "text" / "war-and-peace.{}.txt"
    named = {part: [str(text).format(part)] for part in ("train", "valid", "test")}
    return {
        "text": {
            "sources": named["train"],
            "valid": named["valid"],
            "test": named["test"],
            "tokens": tokens,
            **TOKENS[tokens],
        },
        "model": {"cell": "lstm", "hidden_size": 256, "tied": True, "dropout": 0.1},
        "training": {"minutes": options.minutes, "seed": seed, "sample_tokens": 0, "validations": 5},
    }


def main() -> None:
    options = arguments(__doc__, minutes=1.5, seeds=3)
    found = {
        tokens: [
            outcome(f"granularity/{tokens}-{seed}-{options.minutes:g}", recipe(tokens, seed, options))
            for seed in range(options.seeds)
        ]
        for tokens in TOKENS
    }
    rows = []
    for tokens, ends in found.items():
        unknown = statistics.mean(end["unknown_share"] for end in ends)
        rows.append(
            [
                tokens,
                spread([end["bits_per_byte"] for end in ends]),
                spread([end["perplexity"] for end in ends], 2),
                f"{ends[0]['tokens'] / ends[0]['bytes']:.3f}",
                f"{unknown:.2%}",
                f"{ends[0]['parameters']:,}",
                f"{statistics.mean(end['tokens_read'] for end in ends) / 1e6:.2f}",
            ]
        )
    header = ["token", "bits per byte", "perplexity per token", "tokens per byte", "unknown", "parameters",
              "million tokens read"]  # fmt: skip
    _draw(found)
    lines = [
        *table(header, rows),
        "",
        f"Test split, mean ± standard deviation over {options.seeds} seeds, {options.minutes:g} minutes each.",
        "",
        "![bits per byte of the validation text against seconds](granularity.svg)",
    ]
    publish("granularity", lines)


def _draw(found: dict[str, list[dict[str, Any]]]) -> None:
    styles = zip(("#0072b2", "#d55e00", "#009e73"), "os^", strict=True)
    with figure("granularity", "seconds of training", "bits per byte, validation text") as axes:
        for (tokens, ends), (colour, marker) in zip(found.items(), styles, strict=True):
            for seed, end in enumerate(ends):
                entries = list(end["journal"].read("valid"))
                seconds = [entry["seconds"] for entry in entries]
                bits = [entry["valid"]["bits_per_byte"] for entry in entries]
                axes.plot(seconds, bits, f"{marker}-", color=colour, lw=1, ms=4, label=None if seed else tokens)


if __name__ == "__main__":
    main()
