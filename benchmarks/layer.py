"""A layer over a window of 64 steps: the native engine beside PyTorch, JAX and Keras, all in one run.

At every point (cell, batch B, size H = D, forward alone or forward and backward) all contenders are timed in turn, in
rounds, in both precisions, and with them the product of two matrices of 1024 x 1024 as the limit. All have the same
weights and inputs; how far their results are from ours is kept with the times. Backward means the gradients of the
input and of all parameters. Only matrix products count as work: 2 T B G H (D + H) forward, three times that with
backward. One more point for each cell holds it beside itself: masked weights, odd sizes, odd values.

The limit is the same work at every point. Where it ran slower than elsewhere the machine had something else to do, and
the point is measured again at the end; of its measurements the one with the fastest limit counts.

With --peers, JAX and Keras take part; each gets an environment of its own in build/peers.

Writes docs/benchmarks/layer.json, layer.md and layer.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import layer_page
from layer_page import LIMIT, OURS, PLAIN, PRODUCTS, PYTORCH, Point
from peer import Peer
from pytorch_weights import MODULES, module_like, named
from throughtime import cells, engine
from throughtime.cells.base import Cell
from throughtime.cells.masks import Masks, draw_mask
from throughtime.cells.state import State, map_state
from throughtime.machine import usable_threads
from timing import PAGES, PAUSE, Run, command, machine, quartiles, repeat, take_turns

CELLS = ("elman", "gru", "lstm", "layernorm-gru", "layernorm-lstm", "mingru", "minlstm")
BATCHES = (1, 16, 32, 64)
SIZES = (128, 256, 512, 1024)
STEPS = 64
LIMIT_SIZE = 1024
VARIANTS = (32, 512)
"""B and H at which a cell runs beside itself."""
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
PEERS = {"JAX": ("jax", CELLS), "Keras": ("keras", tuple(MODULES))}
"""By their names on the page: where they are, and the cells they have."""
CALM = 0.92
"""Share of the limit's best rate in a run, below which a point counts as disturbed."""
QUICK = {"batches": (1, 3), "sizes": (8,), "rounds": 2, "seconds": 0.01, "pause": 0.0, "patience": 0}

Pass = Callable[[], list[Tensor]]
"""Once through the window: the output and, backward, the gradients of the input and of all parameters."""


class Contender(NamedTuple):
    run: Run
    flops: int
    """Of the matrix products of a pass."""
    norms: Sequence[float] = ()
    """Of the output, the gradient of the input, and those of the matrices, where these should be as ours are."""


def _asked(peer: Peer, cell: str, arrays: Path, precision: str, backward: bool, flops: int) -> Contender:
    norms = peer.prepare(precision, cell=cell, arrays=str(arrays), precision=precision, backward=backward)
    return Contender(peer.run(precision), flops, norms)


def main() -> None:
    options = _options()
    torch.set_num_threads(usable_threads())
    torch.manual_seed(0)
    if engine.level() is None:
        sys.exit("there are no native kernels here to measure; see `throughtime doctor`")
    peers = [Peer(name, kind) for name, (kind, _) in PEERS.items()] if options.peers else []
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "layer.json"
    kept = json.loads(file.read_text("utf-8"))["points"] if options.resume and file.exists() else []
    found = {
        "command": command(),
        "machine": machine(),
        "engine": engine.describe(),
        "versions": {"Python": sys.version.split()[0], "PyTorch": torch.__version__}
        | {library: version for peer in peers for library, version in peer.versions.items()},
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        **{name: getattr(options, name) for name in ("rounds", "seconds", "pause", "patience")},
        "calm": CALM,
        "points": kept,
    }
    known = {layer_page.point_of(entry) for entry in kept}
    points = [point for point in _points(options) if point not in known]
    for number, point in enumerate(points, 1):
        kept.append(_measured(point, options, peers))
        _write(file, found)
        print(f"{number} of {len(points)}: {layer_page.summary(kept[-1])}", flush=True)
    for attempt in range(2, options.patience + 2):
        disturbed = layer_page.disturbed(found)
        for number, index in enumerate(disturbed, 1):
            again = _measured(layer_page.point_of(kept[index]), options, peers)
            kept[index] = max(kept[index], again, key=layer_page.limit) | {"attempts": attempt}
            _write(file, found)
            told = f"attempt {attempt}, {number} of {len(disturbed)}"
            print(f"{told}: {layer_page.summary(kept[index])}", flush=True)
    for peer in peers:
        peer.child.close()
    _write(file, found)
    (options.out / "layer.md").write_text("\n".join(layer_page.page(found)) + "\n", "utf-8")
    layer_page.draw(found, options.out / "layer.svg")
    print(f"written: {options.out / 'layer.md'}")


def _measured(point: Point, options: argparse.Namespace, peers: Sequence[Peer]) -> dict[str, Any]:
    """A point as it is kept."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = dict(_contenders(point, options.precisions, peers, Path(folder)))
    runs = {name: contender.run for name, contender in contenders.items()}
    seconds = take_turns(runs, options.rounds, options.seconds, options.pause)
    for peer in peers:
        peer.forget()
    return _entry(point, contenders, seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--precisions", nargs="+", choices=tuple(TYPES), default=tuple(TYPES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender at a point (default: 7)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of work at a point (default: 4), 3 rounds at least")
    parser.add_argument(
        "--pause",
        type=float,
        default=PAUSE,
        help=f"seconds before a turn, idle and then warming up (default: {PAUSE:g})",
    )
    parser.add_argument(
        "--patience", type=int, default=2, help="times that disturbed points are tried again (default: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="few small points in few rounds: does it run?")
    parser.add_argument("--peers", action="store_true", help="JAX and Keras too, installed if need be")
    parser.add_argument("--resume", action="store_true", help="keep the points that are in layer.json")
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args()


def _points(options: argparse.Namespace) -> Iterator[Point]:
    for cell in options.cells:
        for kind in ("forward", "both"):
            yield from (Point(cell, batch, size, kind) for batch in options.batches for size in options.sizes)
        batch, size = (max(options.batches), max(options.sizes)) if options.quick else VARIANTS
        yield Point(cell, batch, size, "variants")


def _contenders(
    point: Point, precisions: Sequence[str], peers: Sequence[Peer], folder: Path
) -> Iterator[tuple[str, Contender]]:
    """Everybody who takes part at a point, in the order of their turns."""
    like = cells.create(point.cell, point.size, point.size, engine="reference")
    x_TBD, dy_TBH = (torch.randn(STEPS, point.batch, point.size) for _ in range(2))
    backward = point.kind != "forward"
    flops = flops_of(like, point.batch, backward)
    arrays = folder / "arrays.npz"
    if peers and point.kind != "variants":
        given = {"x": x_TBD, "dy": dy_TBH, **named(like)}
        np.savez(arrays, allow_pickle=False, **{name: array.numpy() for name, array in given.items()})
    for precision in precisions:
        cell = _copy(point.cell, like, "native", precision)
        ours = _cell_pass(cell, x_TBD, dy_TBH, backward)
        if point.kind == "variants":
            yield f"{OURS} {precision}", Contender(repeat(ours), flops)
            yield from _variants(point, precision, cell, x_TBD, dy_TBH)
            yield f"{LIMIT} {precision}", _limit(TYPES[precision])
            continue
        yield f"{OURS} {precision}", Contender(repeat(ours), flops, _norms(ours()))
        module = module_like(point.cell, like) if point.cell in MODULES else _copy(point.cell, like, "reference")
        x, dy = x_TBD.to(TYPES[precision]), dy_TBH.to(TYPES[precision])
        theirs = _pass(_first(module.to(TYPES[precision])), module, x, dy, backward)
        yield f"{PYTORCH} {precision}", Contender(repeat(theirs), flops, _norms(theirs()))
        for peer in peers:
            if point.cell in PEERS[peer.name][1]:
                yield f"{peer.name} {precision}", _asked(peer, point.cell, arrays, precision, backward, flops)
        if point.cell.startswith("layernorm-"):
            plain = cells.create(point.cell.removeprefix("layernorm-"), point.size, point.size, precision=precision)
            yield f"{PLAIN} {precision}", Contender(repeat(_cell_pass(plain, x_TBD, dy_TBH, backward)), flops)
        if backward and like.recurrent is None:
            yield f"{PRODUCTS} {precision}", Contender(repeat(_products(like, x, dy)), flops)
        yield f"{LIMIT} {precision}", _limit(TYPES[precision])


def _variants(
    point: Point, precision: str, cell: Cell, x_TBD: Tensor, dy_TBH: Tensor
) -> Iterator[tuple[str, Contender]]:
    """The cell with masked weights, of a size that is no multiple of 16, with odd values."""
    flops = flops_of(cell, point.batch, True)
    if cell.recurrent:
        masks = Masks(weights=draw_mask(cell.recurrent_weights().detach(), 0.5, torch.Generator().manual_seed(0)))
        work = _cell_pass(cell, x_TBD, dy_TBH, masks=masks)
        yield f"{layer_page.MASKED} {precision}", Contender(repeat(work), flops)
    odd = point.size * 500 // 512
    narrow = cells.create(point.cell, odd, odd, engine="native", precision=precision)
    work = _cell_pass(narrow, x_TBD[..., :odd], dy_TBH[..., :odd])
    yield f"{layer_page.ODD} {precision}", Contender(repeat(work), flops_of(narrow, point.batch, True))
    tiny = map_state(lambda array: torch.full_like(array, 1e-39), cell.initial_state(point.batch))
    work = _cell_pass(cell, torch.full_like(x_TBD, 1e-39), dy_TBH, state=tiny)
    yield f"{layer_page.TINY} {precision}", Contender(repeat(work), flops)
    yield f"{layer_page.LARGE} {precision}", Contender(repeat(_cell_pass(cell, 100 * x_TBD, dy_TBH)), flops)


def flops_of(cell: Cell, batch: int, backward: bool) -> int:
    """Of the matrix products: 2 T B G H (D + H) forward, where G H (D + H) are the entries of all matrices."""
    forward = 2 * STEPS * batch * sum(array.numel() for array in cell.parameters() if array.dim() == 2)
    return (3 if backward else 1) * forward


def _pass(
    forward: Callable[[Tensor], Tensor], module: nn.Module, x_TBD: Tensor, dy_TBH: Tensor, backward: bool
) -> Pass:
    x_TBD, dy_TBH = x_TBD.detach().contiguous().requires_grad_(), dy_TBH.contiguous()
    parameters = list(module.parameters())

    def infer() -> list[Tensor]:
        with torch.no_grad():
            return [forward(x_TBD)]

    def learn() -> list[Tensor]:
        y_TBH = forward(x_TBD)
        return [y_TBH.detach(), *torch.autograd.grad(y_TBH, [x_TBD, *parameters], dy_TBH)]

    return learn if backward else infer


def _cell_pass(
    cell: Cell, x_TBD: Tensor, dy_TBH: Tensor, backward: bool = True, state: State = None, masks: Masks | None = None
) -> Pass:
    return _pass(lambda x_TBD: cell(x_TBD, state, masks=masks)[0], cell, x_TBD, dy_TBH, backward)


def _first(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x_TBD: module(x_TBD)[0]


def _products(cell: Cell, x_TBD: Tensor, dy_TBH: Tensor) -> Callable[[], object]:
    """The three matrix products of a cell that has none with its state."""
    W_GD, x_ND = cell.get_parameter("W").detach().to(x_TBD.dtype), x_TBD.flatten(0, 1)
    slope_NG = dy_TBH.flatten(0, 1).repeat(1, len(W_GD) // dy_TBH.shape[-1])
    return lambda: (torch.mm(x_ND, W_GD.T), torch.mm(slope_NG, W_GD), torch.mm(slope_NG.T, x_ND))


def _limit(kind: torch.dtype) -> Contender:
    one, other = (torch.randn(LIMIT_SIZE, LIMIT_SIZE).to(kind) for _ in range(2))
    return Contender(repeat(lambda: torch.mm(one, other)), 2 * LIMIT_SIZE**3)


def _norms(results: Sequence[Tensor]) -> list[float]:
    """Of all but the vectors: PyTorch has two biases where we have one."""
    return [float(result.float().norm()) for result in results if result.dim() > 1]


def _copy(name: str, like: Cell, kind: str, precision: str = "float32") -> Cell:
    """The same cell with the same weights, run by another engine."""
    with torch.device("meta"):
        copy = cells.create(name, like.input_size, like.hidden_size, engine=kind, precision=precision)
    copy.load_state_dict(like.state_dict(), assign=True)
    return copy


def _entry(point: Point, contenders: dict[str, Contender], seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The facts on a point."""
    norms = next(iter(contenders.values())).norms
    entry: dict[str, Any] = {**point._asdict(), "contenders": {}}
    for name, contender in contenders.items():
        facts: dict[str, Any] = {
            "flops": contender.flops,
            "microseconds": [_short(1e6 * value) for value in seconds[name]],
            "quartiles": [_short(1e6 * value) for value in quartiles(seconds[name])],
        }
        if contender.norms:
            facts["apart"] = _short(max(abs(a / b - 1) for a, b in zip(contender.norms, norms, strict=True)))
        entry["contenders"][name] = facts
    return entry


def _short(value: float) -> float:
    """To four digits, which is more than a clock can tell."""
    return float(f"{value:.4g}")


def _write(file: Path, found: dict[str, Any]) -> None:
    """JSON with a line a point, written aside first: what was measured is not to be lost."""
    points = ",\n".join(json.dumps(entry) for entry in found["points"])
    text = json.dumps({**found, "points": []}, indent=1).replace('"points": []', f'"points": [\n{points}\n ]')
    aside = file.with_suffix(".partial")
    aside.write_text(text + "\n", "utf-8")
    aside.replace(file)


if __name__ == "__main__":
    main()
