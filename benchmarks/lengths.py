"""Padded batches: a layer over lanes of unequal length, forward and backward.

Three contenders take turns: the lanes as they are, by `lengths_B`; the same number of tokens in full lanes; and
PyTorch's module over a packed sequence, with the same weights, where packing and padding are part of the time.

Writes docs/benchmarks/lengths.json and lengths.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pytorch_weights import module_like
from throughtime import cells, engine
from throughtime.machine import usable_threads
from timing import PAGES, Run, command, in_quartiles, machine, quartiles, repeat, table, take_turns

OURS, FULL, PACKED = "unequal lanes", "full lanes", "PyTorch, packed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=["elman", "gru", "lstm"], default=["gru", "lstm"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], metavar="H", help="default: 256 512")
    parser.add_argument("--batch", type=int, default=64, metavar="B", help="lanes (default: 64)")
    parser.add_argument("--steps", type=int, default=100, metavar="T", help="the longest a lane may be (default: 100)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    parser.add_argument("--seconds", type=float, default=30, help="for all turns of a layer (default: 30)")
    parser.add_argument("--threads", type=int, default=usable_threads(), help="default: one for each core")
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths_B = torch.randint(1, options.steps + 1, (options.batch,), generator=torch.Generator().manual_seed(0))
    found = [
        {"cell": name, "size": size, **_measure(name, size, lengths_B, options)}
        for name in options.cells
        for size in options.sizes
    ]
    result = {
        "made_by": command(),
        "machine": machine(),
        "threads": options.threads,
        "engine": engine.describe(),
        "pytorch": torch.__version__,
        "batch": options.batch,
        "steps": options.steps,
        "lengths": lengths_B.tolist(),
        "layers": found,
    }
    (options.out / "lengths.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (options.out / "lengths.md").write_text("\n".join(_page(result)) + "\n", "utf-8")
    print((options.out / "lengths.md").read_text("utf-8"))


def _measure(name: str, size: int, lengths_B: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    noise = torch.Generator().manual_seed(1)
    cell = cells.create(name, size, size, generator=noise)
    module = module_like(name, cell)
    x_TBD, dy_TBH = torch.randn(2, options.steps, options.batch, size, generator=noise)
    tokens = int(lengths_B.sum())
    full_steps = max(1, round(tokens / options.batch))
    full_TBD, dfull_TBH = x_TBD[:full_steps].clone(), dy_TBH[:full_steps].clone()
    contenders: dict[str, Run] = {
        OURS: _passes(lambda x_TBD: cell(x_TBD, lengths_B=lengths_B)[0], cell, x_TBD, dy_TBH),
        FULL: _passes(lambda x_TBD: cell(x_TBD)[0], cell, full_TBD, dfull_TBH),
        PACKED: _passes(lambda x_TBD: _packed(module, x_TBD, lengths_B), module, x_TBD, dy_TBH),
    }
    with torch.no_grad():
        own_TBH, theirs_TBH = cell(x_TBD, lengths_B=lengths_B)[0], _packed(module, x_TBD, lengths_B)
    seconds = take_turns(contenders, options.rounds, options.seconds)
    counts = {OURS: tokens, FULL: full_steps * options.batch, PACKED: tokens}
    return {
        "runs_by": cell.engine,
        "apart": (own_TBH - theirs_TBH).abs().max().item(),
        "microseconds_per_token": {
            contender: [1e6 * each / counts[contender] for each in times] for contender, times in seconds.items()
        },
    }


def _packed(module: nn.RNNBase, x_TBD: Tensor, lengths_B: Tensor) -> Tensor:
    packed = pack_padded_sequence(x_TBD, lengths_B, enforce_sorted=False)
    y_TBH, _ = pad_packed_sequence(module(packed)[0], total_length=len(x_TBD))
    return y_TBH


def _passes(layer: Callable[[Tensor], Tensor], module: nn.Module, x_TBD: Tensor, dy_TBH: Tensor) -> Run:
    x_TBD.requires_grad_()

    def work() -> None:
        x_TBD.grad = None
        module.zero_grad()
        torch.autograd.backward(layer(x_TBD), dy_TBH)

    return repeat(work)


def _page(result: dict[str, Any]) -> list[str]:
    rows = []
    for layer in result["layers"]:
        paces = layer["microseconds_per_token"]
        beside_full = _ratios(paces[OURS], paces[FULL])
        rows.append(
            [
                f"{layer['cell']}, {layer['size']} units",
                f"{quartiles(paces[OURS])[1]:.1f}",
                in_quartiles(beside_full, unit="x"),
                in_quartiles(_ratios(paces[PACKED], paces[OURS]), unit="x"),
            ]
        )
    lengths = result["lengths"]
    share = sum(lengths) / len(lengths) / result["steps"]
    return [
        "# Padded batches",
        "",
        *table(["layer", "µs/token", "time a token beside full lanes", "speed beside PyTorch, packed"], rows),
        "",
        f"Forward and backward over {len(lengths)} lanes of 1 to {result['steps']} steps, drawn evenly: "
        f"{sum(lengths):,} tokens, {share:.0%} of the padded batch.",
        f"Full lanes: {len(lengths)} lanes of {round(share * result['steps'])} steps. PyTorch's time includes",
        "`pack_padded_sequence` and `pad_packed_sequence`, ours the sorting of the lanes. Medians over turns, with",
        "quartiles; each ratio is of two turns next to each other.",
        "",
        f"Engine: {result['engine']}, float32, {result['threads']} threads; PyTorch {result['pytorch']}. All figures:",
        "[lengths.json](lengths.json).",
        "",
        f"Made by `{result['made_by']}` on {result['machine']}.",
    ]


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


if __name__ == "__main__":
    main()
