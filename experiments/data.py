"""Less training data than other models? Learning curves over five sizes of text, against three rivals tuned alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import rivals
from common import arguments, excerpt, figure, once, outcome, publish, shakespeare, spread, table
from costs import seconds
from kneser_ney import bits_by_order
from throughtime.training.settings import Training

STEPS = {10_000: 400, 30_000: 800, 100_000: 1300, 300_000: 1800, 1_000_000: 2700}
"""By bytes of training text: what is read is 20 times the smallest, 1.4 times the largest."""
RATES = (2e-3, 4e-3, 8e-3)
RATE_AT = 100_000
"""The size at which the learning rate is chosen, without dropout."""
LONGER = 3
"""Times the steps, at that size, for a look at whether time was short."""
DROPOUTS = (0.0, 0.2)
LONGEST = 12
"""Of the n-grams."""
GRU: dict[str, Any] = {"cell": "gru", "hidden_size": 128, "embedding_size": 32}
RIVALS: dict[str, Callable[[float], rivals.Network]] = {
    "feed-forward": partial(rivals.Feedforward, 16, 192),
    "transformer": partial(rivals.Transformer, 64, 4, 2, 3),
}
NETWORKS = ("GRU", *RIVALS)
NGRAM = "Kneser-Ney"


class Case(NamedTuple):
    """A point of a curve."""

    size: int
    times: int = 1
    """As many steps as STEPS says, so many times over."""

    def __str__(self) -> str:
        return f"{self.size:,}" + (f", {self.times} times the steps" if self.times > 1 else "")


class Trial(NamedTuple):
    """One training."""

    case: Case
    seed: int
    """Of everything random, and where the training text begins."""
    rate: float
    dropout: float

    def __str__(self) -> str:
        times = f"-{self.case.times}" if self.case.times > 1 else ""
        return f"{self.case.size}-{self.seed}-{self.rate:g}-{self.dropout:g}{times}"


@final
class Comparison:
    """The text, and what each model comes to on it."""

    def __init__(self, options: Any):
        self.options = options
        self.pool, self.valid, self.test = shakespeare(options)

    def training_text(self, size: int, seed: int) -> bytes:
        """The bytes that follow each other from another place for each seed; after the last comes the first."""
        start: int = seed * len(self.pool) // self.options.seeds
        return (self.pool + self.pool)[start : start + size]

    def trained(self, model: str, trial: Trial) -> dict[str, Any]:
        """`valid` and `test`, bits per byte; `parameters`; `early`, whether patience ended it."""
        if model == "GRU":
            return self._recurrent(trial)
        texts = {"train": self.training_text(trial.case.size, trial.seed), "valid": self.valid, "test": self.test}
        name = f"data-{self.options.effort:g}/{model}-{trial}"
        training = Training(**self._training(trial))
        found = once(name, rivals.train, partial(RIVALS[model], trial.dropout), texts, training)
        return {**found, "early": found["read"] < (training.steps or 0) * rivals.LANES * rivals.CHUNK}

    def _recurrent(self, trial: Trial) -> dict[str, Any]:
        name, text = f"{trial.case.size}-{trial.seed}", self.training_text(trial.case.size, trial.seed)
        recipe = {
            "text": {
                "sources": [excerpt(f"data-{name}", text)],
                "valid": [excerpt("valid", self.valid)],
                "test": [excerpt("test", self.test)],
                "tokens": "byte",
            },
            "streams": {"lanes": rivals.LANES, "window": rivals.CHUNK},
            "model": {**GRU, "dropout": trial.dropout},
            "gradient": {"clip_norm": rivals.CLIP_NORM},
            "training": {**self._training(trial), "sample_tokens": 0},
        }
        end = outcome(f"data-{self.options.effort:g}/GRU-{trial}", recipe)
        valid = min(entry["valid"]["bits_per_byte"] for entry in end["journal"].read("valid"))
        return {"valid": valid, "test": end["bits_per_byte"], "parameters": end["parameters"],
                "early": end["ending"] == "patience"}  # fmt: skip

    def _training(self, trial: Trial) -> dict[str, Any]:
        steps = max(8, round(STEPS[trial.case.size] * trial.case.times * self.options.effort))
        return {"steps": steps, "seed": trial.seed, "learning_rate": trial.rate, "validations": 8, "patience": 3,
                "threads": 1}  # fmt: skip

    def best_rate(self, model: str) -> float:
        """The learning rate that is best on the validation text."""
        return min(RATES, key=lambda rate: self.trained(model, Trial(Case(RATE_AT), 0, rate, 0.0))["valid"])

    def best_dropout(self, model: str, case: Case, rate: float) -> float:
        return min(DROPOUTS, key=lambda dropout: self.trained(model, Trial(case, 0, rate, dropout))["valid"])

    def best_order(self, size: int) -> int:
        """Of n-grams, by the validation text."""
        bits = bits_by_order(self.training_text(size, 0), self.valid, LONGEST)
        return 1 + bits.index(min(bits))


def main() -> None:
    options = arguments(__doc__, effort=1.0, seeds=3)
    comparison, seeds = Comparison(options), range(options.seeds)
    curve, longer = [Case(size) for size in STEPS], Case(RATE_AT, LONGER)
    orders = {case.size: comparison.best_order(case.size) for case in curve}
    rates = {model: comparison.best_rate(model) for model in NETWORKS}
    found: dict[tuple[str, Case], list[float]] = {}
    parameters: dict[str, int] = {}
    tuned = []
    for case in (*curve, longer):
        texts = [comparison.training_text(case.size, seed) for seed in seeds]
        found[NGRAM, case] = [bits_by_order(text, comparison.test, orders[case.size])[-1] for text in texts]
        tuned.append([str(case)])
        for model in NETWORKS:
            dropout = comparison.best_dropout(model, case, rates[model])
            ends = [comparison.trained(model, Trial(case, seed, rates[model], dropout)) for seed in seeds]
            found[model, case], parameters[model] = [end["test"] for end in ends], ends[0]["parameters"]
            tuned[-1].append(f"dropout {dropout:g}, {sum(end['early'] for end in ends)} early")
        tuned[-1].append(f"order {orders[case.size]}")
    text = excerpt("timed", comparison.pool)
    timed = once(f"data-{options.effort:g}/seconds", seconds, text, GRU, RIVALS)
    costs = {model: _beside(timed[model], timed["gru"]) for model in RIVALS}
    _draw(found, curve)
    models = (*NETWORKS, NGRAM)
    rows = [[str(case), *(spread(found[model, case]) for model in models)] for case in (*curve, longer)]
    beside = [
        [str(case), *(spread(_less(found[model, case], found["GRU", case])) for model in models[1:])]
        for case in (*curve, longer)
    ]
    means = {key: statistics.mean(bits) for key, bits in found.items()}
    gains = ["gained from the first size to the last"]
    gains += [f"{means[model, curve[0]] - means[model, curve[-1]]:.3f}" for model in models]
    lines = [
        *table(["bytes to train on", *models], [*rows, gains]),
        "",
        f"Bits per byte of the test text ({len(comparison.test):,} bytes), mean ± standard deviation over "
        f"{options.seeds} seeds, each with its own place in the text. Parameters: {_listed(parameters)}; learning "
        f"rates chosen: {_listed(rates)}.",
        "",
        *table(["bytes to train on", *(f"{model} - GRU" for model in models[1:])], beside),
        "",
        "The same, seed by seed: what differs between the places in the text falls out.",
        "",
        *table(["bytes to train on", *models], tuned),
        "",
        f"What the validation text chose, and how many of {options.seeds} trainings it ended before their time. "
        f"The time of an update beside the GRU's, taken in turn on one thread: {_listed(costs)}.",
        "",
        "![bits per byte by bytes of training text](data.svg)",
    ]
    publish("data", lines)


def _listed(values: Mapping[str, float | str]) -> str:
    return ", ".join(
        f"{model} {value if isinstance(value, str) else format(value, ',')}" for model, value in values.items()
    )


def _less(these: Sequence[float], those: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(these, those, strict=True)]


def _beside(one: Sequence[float], other: Sequence[float]) -> str:
    """Median and middle half of the ratios of turns."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(one, other, strict=True)], n=4)
    return f"{middle:.2f}x ({low:.2f} to {high:.2f})"


def _draw(found: dict[tuple[str, Case], list[float]], curve: Sequence[Case]) -> None:
    styles = {"GRU": ("#0072b2", "o"), "feed-forward": ("#e69f00", "s"), "transformer": ("#d55e00", "^"),
              NGRAM: ("#009e73", "D")}  # fmt: skip
    with figure("data", "bytes of training text", "bits per byte, test text") as axes:
        for model, (colour, marker) in styles.items():
            means = [statistics.mean(found[model, case]) for case in curve]
            deviations = [statistics.stdev(found[model, case]) for case in curve]
            sizes = [case.size for case in curve]
            axes.errorbar(sizes, means, deviations, fmt=f"{marker}-", color=colour, lw=1, ms=4, label=model)
        axes.set_xscale("log")


if __name__ == "__main__":
    main()
