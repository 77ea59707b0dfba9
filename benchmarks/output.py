"""The output side, forward and backward: from hidden units to the nats of the targets, in what time and memory.

Times are of passes in turn, as ratios to the plain form; memory is the largest resident memory of a process of its own,
beyond what it has before the pass, so the gradients are in it.

Writes docs/benchmarks/output.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear, linear_cross_entropy

from throughtime.machine import usable_threads
from throughtime.models.output import LOGITS_AT_ONCE, target_nats
from timing import PAGES, command, machine, repeat

PAGE = PAGES / "output.md"
TURNS = 7
TOKENS, HIDDEN = 2048, 512
VOCABULARIES = (65, 10_000, 50_000)


def plain(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    return cross_entropy(linear(hidden_NH, weight_VH, bias_V), targets_N, reduction="none").mean()


def ours(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    return target_nats(hidden_NH, weight_VH, bias_V, targets_N).mean()


def weighted(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    return target_nats(hidden_NH, weight_VH, bias_V, targets_N) @ torch.linspace(0, 1, TOKENS)


def library(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor, rows: int | None = None) -> Tensor:
    chunks = LinearCrossEntropyOptions(batch_chunk_size=rows)
    return linear_cross_entropy(
        hidden_NH, weight_VH, targets_N, linear_bias=bias_V, reduction="none", options=chunks
    ).mean()


def library_our_chunks(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    return library(hidden_NH, weight_VH, bias_V, targets_N, LOGITS_AT_ONCE // len(weight_VH))


FORMS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "plain": ("all logits at once", plain),
    "ours": ("`target_nats`, a mean", ours),
    "weighted": ("`target_nats`, a weight for each token", weighted),
    "library": ("`linear_cross_entropy`, chunks as it chooses", library),
    "library-our-chunks": ("`linear_cross_entropy`, chunks of the same size", library_our_chunks),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs=2, metavar=("FORM", "V"), help="print the bytes that one pass takes")
    options = parser.parse_args()
    torch.set_num_threads(usable_threads())
    if options.memory:
        form, vocabulary = options.memory
        print(_memory(FORMS[form][1], int(vocabulary)))
        return
    rows = ["| vocabulary | form | ms | time beside all at once | MB |", "| ---: | --- | ---: | ---: | ---: |"]
    for vocabulary in VOCABULARIES:
        arrays = _arrays(vocabulary)
        turns = [{form: _time(loss, arrays) for form, (_, loss) in FORMS.items()} for _ in range(TURNS + 1)][1:]
        for form, (title, _) in FORMS.items():
            ratios = sorted(turn[form] / turn["plain"] for turn in turns)
            arguments = [sys.executable, __file__, "--memory", form, str(vocabulary)]
            megabytes = int(subprocess.run(arguments, check=True, capture_output=True).stdout) / 1e6
            rows.append(
                f"| {vocabulary:,} | {title} | {1e3 * statistics.median(turn[form] for turn in turns):,.1f} | "
                f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {megabytes:,.0f} |"
            )
    lines = [
        "# From hidden units to nats",
        "",
        *rows,
        "",
        f"Forward and backward, {TOKENS:,} tokens, {HIDDEN} units, float32, medians of {TURNS} turns. Below 1x is",
        "faster than all logits at once. The gradients, as large as the weights, are in the memory. Up to",
        f"{LOGITS_AT_ONCE:,} logits `target_nats` is the plain form, so there the times differ by chance.",
        "",
        f"Made by `{command()}` on {machine()}, PyTorch {torch.__version__}.",
        "",
    ]
    PAGE.write_text("\n".join(lines), "utf-8")
    print(PAGE.read_text("utf-8"))


def _arrays(vocabulary: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(TOKENS, HIDDEN, generator=generator)
    weight_VH = torch.randn(vocabulary, HIDDEN, generator=generator).mul_(HIDDEN**-0.5)
    bias_V, targets_N = torch.zeros(vocabulary), torch.randint(vocabulary, (TOKENS,), generator=generator)
    return [hidden_NH.requires_grad_(), weight_VH.requires_grad_(), bias_V.requires_grad_(), targets_N]


def _pass(loss: Callable[..., Tensor], arrays: list[Tensor]) -> None:
    for array in arrays:
        array.grad = None
    torch.autograd.backward(loss(*arrays))


def _time(loss: Callable[..., Tensor], arrays: list[Tensor]) -> float:
    """Seconds a pass; small ones are repeated."""
    passes = max(1, LOGITS_AT_ONCE // (TOKENS * len(arrays[1])))
    return repeat(lambda: _pass(loss, arrays))(passes) / passes


def _memory(loss: Callable[..., Tensor], vocabulary: int) -> int:
    _pass(loss, _arrays(2))  # what is loaded with the first pass is not of this one
    arrays = _arrays(vocabulary)
    before = _resident("VmRSS")
    _pass(loss, arrays)
    return _resident("VmHWM") - before


def _resident(which: str) -> int:
    """Bytes; from /proc, because the operating system's own account of a process begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


if __name__ == "__main__":
    main()
