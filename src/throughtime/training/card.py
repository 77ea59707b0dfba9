"""The card of a model: what it is, what it was trained on, how good it is, how to use it. All of it from the run."""

from __future__ import annotations

from pathlib import Path

from throughtime.recipe import Recipe
from throughtime.text.dataset import Dataset, describe
from throughtime.training.journal import Journal
from throughtime.version import VERSION


def write_card(path: Path, recipe: Recipe, dataset: Dataset, journal: Journal) -> None:
    """Write the card of the run whose folder `path` lies in."""
    begin, end = next(journal.read("begin")), next(journal.read("end"))
    model, tokenizer = recipe.model, dataset.tokenizer
    lines = [
        f"# {path.parent.name}",
        "",
        f"A recurrent language model: {model.layers} layer(s) of {model.cell}, {model.hidden_size} units, "
        f"{begin['parameters']:,} parameters, {tokenizer.vocabulary_size:,} {tokenizer.kind} tokens. "
        f"Made with throughtime {VERSION}.",
        "",
        "![loss curve](curve.svg)",
        "",
        "## Trained on",
        "",
        *(f"- {name}" for name in recipe.text.sources),
        "",
        *(f"- {describe(name, tokenizer, ids)}" for name, ids in dataset.splits().items()),
        "",
        f"{end['step']:,} steps in {end['seconds']:,.0f} s ({end['ending']}), "
        f"seed {recipe.training.seed}, {begin['threads']} threads, run by {begin['engine']}. "
        "Every setting is in [recipe.toml](recipe.toml).",
    ]
    if end["split"]:
        lines += [
            "",
            f"## Measured on the {end['split']} split",
            "",
            "| figure | value |",
            "| --- | --- |",
            f"| tokens predicted | {end['tokens']:,} |",
            f"| nats per token | {end['nats_per_token']:.4f} |",
            f"| perplexity per {tokenizer.kind} token | {end['perplexity']:.4f} |",
            f"| bits per byte of the text | {end['bits_per_byte']:.4f} |",
            f"| unknown tokens | {end['unknown_share']:.3%} |",
        ]
    samples = list(journal.read("sample"))
    if samples:
        lines += ["", "## Sample", "", *(f"    {line}" for line in samples[-1]["text"].splitlines())]
    lines += [
        "",
        "## Use",
        "",
        f"    throughtime generate {path.parent}",
        f"    throughtime evaluate {path.parent}",
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
