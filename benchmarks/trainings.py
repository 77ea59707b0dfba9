"""The trainings that benchmarks/train.py times, each in a process of its own that trains when it is told to.

A message names the tokens to train up to. The answer tells the tokens read so far, how long the steps of this turn took
(the first left out: it wakes what fell asleep), and the nats per token of the validation text, which take no part in
the time. All are measured by the same function, on a model of ours with their weights.

Axes: T time, B lane, V vocabulary, H hidden.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from pipe import Parent
from pytorch_weights import put_weights, take_weights
from throughtime.cells.base import Cell
from throughtime.models.language import LanguageModel
from throughtime.objective.evaluation import evaluate
from throughtime.recipe import Recipe, build
from throughtime.streams.batches import BatchIndex, BatchSource, make_stream_batches
from throughtime.tasks.registry import make_task
from throughtime.text.dataset import Dataset, prepare
from throughtime.training.display import Silence
from throughtime.training.loop import Trainer
from throughtime.training.predictor import TorchPredictor
from throughtime.training.ranks import Ranks

LANES, WINDOW = 32, 64
RATE, CLIP = 2e-3, 1.0


def recipe(text: Path, hidden: int, steps: int, validations: int, precision: str, seed: int) -> dict[str, Any]:
    """Adam at one rate, as PyTorch's users begin with, so that both trainings do the same."""
    return {
        "text": {"sources": [str(text)], "split": [0.9, 0.1, 0.0]},
        "streams": {"lanes": LANES, "window": WINDOW},
        "model": {"cell": "gru", "hidden_size": hidden, "precision": precision},
        "gradient": {"clip_norm": CLIP},
        "training": {
            "steps": steps,
            "validations": validations,
            "seed": seed,
            "learning_rate": RATE,
            "warmup": 0.0,
            "final_rate": 1.0,
            "beta2": 0.999,
            "weight_decay": 0.0,
            "sample_tokens": 0,
        },
    }


def ours(settings: dict[str, Any], parent: Parent) -> None:
    """A turn ends with a validation; the step before it is left out of the time, with the first of the turn."""
    task = make_task(build(settings))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(task.settled(), task.read(), Path(folder), Silence(), Ranks())
        with trainer:
            trainer.begin(None)
            while parent.next():
                times: list[float] = []
                ending = None
                while not times or not trainer.validated:
                    begin = time.perf_counter()
                    ending = trainer.step()
                    times.append(time.perf_counter() - begin)
                report = trainer.selection.latest
                assert report is not None
                _answer(parent, trainer.learner.counts.tokens, times[1:-1], LANES * WINDOW, report.score)
                if ending is not None:
                    return


class Network(nn.Module):
    """The model as it is written in PyTorch."""

    def __init__(self, vocabulary: int, hidden: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.rnn = nn.GRU(hidden, hidden)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, ids_TB: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        y_TBH, state = self.rnn(self.embedding(ids_TB), state)
        return self.output(y_TBH), state


class Task(NamedTuple):
    """What a training in PyTorch is given."""

    recipe: Recipe
    dataset: Dataset
    network: Network
    validate: Callable[[], float]
    """Nats per token of the validation text."""


def prepared(settings: dict[str, Any]) -> Task:
    """Our text and our model's initial weights for a network of PyTorch."""
    wanted = build(settings)
    dataset = prepare(wanted.text)
    generator = torch.Generator().manual_seed(wanted.training.seed)
    model = LanguageModel(wanted.model, dataset.tokenizer.vocabulary_size, generator)
    network = Network(model.vocabulary_size, wanted.model.widths[-1])
    cell = cast(Cell, model.stack.cells[0])
    pairs = [(model.embedding, network.embedding.weight), (model.W_o, network.output.weight)]
    pairs.append((model.b_o, network.output.bias))
    with torch.no_grad():
        put_weights(network.rnn, cell)
        for mine, its in pairs:
            its.copy_(mine)

    @torch.no_grad()
    def validate() -> float:
        take_weights(network.rnn, cell)
        for mine, its in pairs:
            mine.copy_(its)
        assert dataset.valid is not None
        return evaluate(TorchPredictor(model), dataset.valid).nats_per_token

    return Task(wanted, dataset, network, validate)


def plain(settings: dict[str, Any], parent: Parent) -> None:
    """The loop as it is written in PyTorch, on our initial weights and our batches."""
    task = prepared(settings)
    model = task.network
    training = task.recipe.training
    optimiser = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    cut = make_stream_batches(task.dataset.train, task.recipe.streams, training.seed)
    assert training.steps
    epochs = [_epoch(cut, epoch) for epoch in range(-(-training.steps // cut.batches_in(0)))]

    def steps() -> Iterator[int]:
        for inputs, targets in epochs:
            state = None
            for start in range(0, len(inputs), WINDOW):
                if state is not None:
                    state = state.detach()
                optimiser.zero_grad()
                logits, state = model(inputs[start : start + WINDOW], state)
                loss = cross_entropy(logits.flatten(0, 1), targets[start : start + WINDOW].flatten())
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimiser.step()
                yield LANES * WINDOW

    _serve(parent, steps(), task.validate)


def example(settings: dict[str, Any], parent: Parent) -> None:
    """An equivalent, written anew, of what main.py of PyTorch's example `word_language_model` does with
    `--model GRU --emsize H --nhid H --nlayers 1 --dropout 0`, and its defaults else: 20 lanes, windows of 35, plain
    gradient descent at rate 20, a quarter of it after an epoch without a better validation, clipping at 0.25.
    """
    lanes, window, rate, clip = 20, 35, 20.0, 0.25
    task = prepared(settings)
    model = task.network
    nn.init.uniform_(model.embedding.weight, -0.1, 0.1)
    nn.init.uniform_(model.output.weight, -0.1, 0.1)
    nn.init.zeros_(model.output.bias)
    model.rnn.reset_parameters()
    ids = torch.from_numpy(task.dataset.train.read(0, len(task.dataset.train)))
    length = len(ids) // lanes
    text = ids[: length * lanes].view(lanes, length).t().contiguous()
    criterion = nn.NLLLoss()

    def steps() -> Iterator[int]:
        best, lr = float("inf"), rate
        while True:
            hidden = torch.zeros(1, lanes, task.recipe.model.widths[-1])
            for start in range(0, len(text) - 1, window):
                stop = min(start + window, len(text) - 1)
                model.zero_grad()
                hidden = hidden.detach()
                logits, hidden = model(text[start:stop], hidden)
                loss = criterion(log_softmax(logits.flatten(0, 1), dim=1), text[start + 1 : stop + 1].flatten())
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.data.add_(parameter.grad, alpha=-lr)
                yield lanes * (stop - start)
            found = task.validate()
            if found >= best:
                lr /= 4
            best = min(best, found)
            yield 0  # what came since the last step is not training

    _serve(parent, steps(), task.validate)


TRAININGS: dict[str, tuple[Callable[..., None], str]] = {
    "throughtime float32": (ours, "float32"),
    "throughtime bf16": (ours, "bf16"),
    "PyTorch": (plain, "float32"),
    "word_language_model": (example, "float32"),
}
"""By their names: what runs, and the precision of a model of ours."""


def _epoch(cut: BatchSource, epoch: int) -> tuple[Tensor, Tensor]:
    """The windows of an epoch one behind the other: inputs and targets of each lane."""
    windows = [cut[BatchIndex(epoch, index)] for index in range(cut.batches_in(epoch))]
    inputs = torch.cat([torch.from_numpy(window.inputs) for window in windows])
    return inputs, torch.cat([torch.from_numpy(window.targets) for window in windows])


def _serve(parent: Parent, steps: Iterator[int], validate: Callable[[], float]) -> None:
    """Train up to the tokens of each message. `steps` yields the tokens of a step, or 0 where it did something else."""
    tokens = 0
    while message := parent.next():
        seconds: list[float] = []
        read: list[int] = []
        while tokens < message["tokens"]:
            began = time.perf_counter()
            now = next(steps)
            if now:
                seconds.append(time.perf_counter() - began)
                read.append(now)
            tokens += now
        timed = sum(read[1:]) / len(read[1:]) if read[1:] else 0
        _answer(parent, tokens, seconds[1:], timed, validate())


def _answer(parent: Parent, tokens: int, seconds: list[float], tokens_a_step: float, nats: float) -> None:
    parent.answer(tokens=tokens, timed=round(tokens_a_step * len(seconds)), seconds=sum(seconds), nats=nats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TRAININGS)
    parser.add_argument("text", type=Path)
    parser.add_argument("hidden", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("validations", type=int)
    options = vars(parser.parse_args())
    run, precision = TRAININGS[options.pop("name")]
    torch.manual_seed(0)
    run(recipe(**options, precision=precision, seed=0), Parent())


if __name__ == "__main__":
    main()
