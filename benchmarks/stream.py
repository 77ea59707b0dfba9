"""A model in use: one step, a text, many texts at once; beside PyTorch and ONNX Runtime.

Contenders are timed in turn. Ours runs in a process of its own, without PyTorch, as in a product; so does ONNX Runtime,
in an environment that is made for it in build/peers. A step is called from Python, with its state in and out.

Writes docs/benchmarks/stream.json and stream.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peer import Peer
from pytorch_weights import module_like, named
from throughtime import cells, engine
from throughtime.machine import usable_threads
from throughtime.models.language import LanguageModel
from throughtime.models.saved import save_model
from throughtime.models.settings import Model
from throughtime.runtime.network import WEIGHTS
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit
from timing import PAGES, PAUSE, Run, command, in_quartiles, machine, repeat, table, take_turns

OURS, PYTORCH, ONNX = "throughtime", "PyTorch", "ONNX Runtime"
CELLS = ("gru", "lstm")
SIZES = (128, 256, 512, 1024)
HIDDEN, LANES = 512, 64
QUICK: dict[str, Any] = {"sizes": (8,), "rounds": 2, "seconds": 0.02, "pause": 0.0, "hidden": 8, "tokens": 20}

Seconds = dict[str, list[float]]


def main() -> None:
    options = _options()
    if engine.level() is None:
        sys.exit("there are no native kernels here to measure; see `throughtime doctor`")
    torch.set_num_threads(usable_threads())
    torch.manual_seed(0)
    ours, onnx = Peer(OURS, "runtime"), Peer(ONNX, "onnx") if options.peers else None
    peers = [peer for peer in (ours, onnx) if peer]
    found: dict[str, Any] = {
        "command": command(),
        "machine": machine(),
        "engine": engine.describe(),
        "versions": {"Python": sys.version.split()[0], "PyTorch": torch.__version__}
        | {library: version for peer in peers for library, version in peer.versions.items()},
        **{name: getattr(options, name) for name in ("rounds", "seconds", "pause", "hidden", "tokens")},
        "steps": [],
    }
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for cell in CELLS:
            for size in options.sizes:
                seconds = _turns(options, _steps(cell, size, place, ours, onnx))
                found["steps"].append({"cell": cell, "size": size, "seconds": seconds})
                told = ", ".join(f"{name} {1e6 * statistics.median(each):.1f}" for name, each in seconds.items())
                print(f"one step of {cell} {size}, microseconds: {told}", flush=True)
        folder, model = _model(options.hidden, place)
        found["text"] = _turns(options, _texts(options, folder, model, ours))
        found["streams"] = _turns(options, _streams(options, folder, model, place, ours, onnx))
        found["start"] = [_start(folder) for _ in range(options.rounds)]
    for peer in peers:
        peer.child.close()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "stream.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (options.out / "stream.md").write_text("\n".join(_page(found)) + "\n", "utf-8")
    print(f"written: {options.out / 'stream.md'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="without ONNX Runtime")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="H", help="units of a layer")
    parser.add_argument("--hidden", type=int, default=HIDDEN, help=f"units of the language model (default: {HIDDEN})")
    parser.add_argument("--tokens", type=int, default=1000, help="of the text that is written (default: 1000)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender (default: 9)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of work for a comparison (default: 6)")
    parser.add_argument(
        "--pause",
        type=float,
        default=PAUSE,
        help=f"seconds before a turn, idle and then warming up (default: {PAUSE:g})",
    )
    parser.add_argument("--out", type=Path, default=PAGES, help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="a small network, few rounds: does it run?")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def _turns(options: argparse.Namespace, contenders: dict[str, Run]) -> Seconds:
    return take_turns(contenders, options.rounds, options.seconds, options.pause)


def _steps(kind: str, size: int, place: Path, ours: Peer, onnx: Peer | None) -> dict[str, Run]:
    """One step of a layer, one lane, called again and again."""
    cell = cells.create(kind, size, size, engine="reference", generator=torch.Generator().manual_seed(size))
    x_BD = torch.randn(1, size)
    arrays = place / f"{kind}-{size}.npz"
    given: dict[str, Any] = {"x": x_BD.numpy()} | {name: array.numpy() for name, array in named(cell).items()}
    np.savez(arrays, **given)
    contenders = {}
    for weights in WEIGHTS:
        contenders[f"{OURS} {weights}"] = _asked(
            ours, weights, what="step", weights=weights, cell=kind, arrays=str(arrays)
        )
    module, state = module_like(kind, cell), torch.zeros(1, 1, size)
    before = (state, state) if kind == "lstm" else state

    def call() -> torch.Tensor:
        with torch.no_grad():
            y_TBH: torch.Tensor = module(x_BD[None], before)[0]
        return y_TBH

    wanted = float(call().norm())
    for name, norm in ((name, peer_norm) for name, (_, peer_norm) in contenders.items()):
        assert math.isclose(norm, wanted, rel_tol=0.02), f"{name} computes something else: {norm} beside {wanted}"
    runs = {name: run for name, (run, _) in contenders.items()} | {PYTORCH: repeat(call)}
    for threads in (1, 2):
        if onnx is None:
            break
        run, norm = _asked(onnx, str(threads), what="step", cell=kind, arrays=str(arrays), batch=1, threads=threads)
        assert math.isclose(norm, wanted, rel_tol=1e-3), f"{ONNX} computes something else: {norm} beside {wanted}"
        runs[f"{ONNX}, {threads} threads"] = run
    return runs


def _asked(peer: Peer, name: str, **given: Any) -> tuple[Run, float]:
    norms = peer.prepare(name, **given)
    return peer.run(name), norms[0] if norms else 0.0


def _model(hidden: int, place: Path) -> tuple[Path, LanguageModel]:
    """An untrained model of characters: what it writes takes as long as what a trained one does."""
    tokenizer = fit(Text(), [bytes(range(32, 96)) + b"\n"])
    settings = Model(cell="lstm", hidden_size=hidden)
    model = LanguageModel(settings, tokenizer.vocabulary_size, torch.Generator().manual_seed(0))
    folder = place / "model"
    save_model(folder, model, {})
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    return folder, model


class _Plain(nn.Module):
    """The model as one writes it in PyTorch."""

    def __init__(self, like: LanguageModel):
        super().__init__()
        self.embedding = nn.Embedding(*like.embedding.shape)
        self.embedding.load_state_dict({"weight": like.embedding.detach()})
        cell = like.stack.cells[0]
        assert isinstance(cell, cells.Cell)
        self.lstm = module_like("lstm", cell)
        self.head = nn.Linear(like.settings.widths[-1], like.vocabulary_size)
        self.head.load_state_dict({"weight": like.W_o.detach(), "bias": like.b_o.detach()})

    @torch.no_grad()
    def write(self, tokens: int, lanes: int = 1) -> torch.Tensor:
        ids_1B, state, drawn = torch.zeros(1, lanes, dtype=torch.long), None, []
        for _ in range(tokens):
            y_1BH, state = self.lstm(self.embedding(ids_1B), state)
            ids_1B = torch.multinomial(self.head(y_1BH[0]).softmax(-1), 1).T
            drawn.append(ids_1B)
        return torch.cat(drawn)


def _texts(options: argparse.Namespace, folder: Path, model: LanguageModel, ours: Peer) -> dict[str, Run]:
    plain = _Plain(model)
    runs = {PYTORCH: repeat(lambda: plain.write(options.tokens))}
    for weights in WEIGHTS:
        given = {"what": "write", "weights": weights, "folder": str(folder), "tokens": options.tokens}
        runs[f"{OURS} {weights}"] = _asked(ours, f"write {weights}", **given)[0]
    return runs


def _streams(
    options: argparse.Namespace, folder: Path, model: LanguageModel, place: Path, ours: Peer, onnx: Peer | None
) -> dict[str, Run]:
    """So many tokens for each of LANES streams; and for one."""
    tokens = max(1, options.tokens // 20)
    runs = {}
    for weights in WEIGHTS:
        for lanes in (1, LANES):
            given = {"what": "draw", "weights": weights, "folder": str(folder), "batch": lanes, "tokens": tokens}
            runs[f"{OURS} {weights}, {lanes}"] = _asked(ours, f"draw {weights} {lanes}", **given)[0]
    plain = _Plain(model)
    runs[f"{PYTORCH}, {LANES}"] = repeat(lambda: plain.write(tokens, LANES))
    if onnx:
        cell = model.stack.cells[0]
        assert isinstance(cell, cells.Cell)
        outer = {"embedding": model.embedding, "W_o": model.W_o, "b_o": model.b_o}
        arrays: dict[str, Any] = {name: array.detach().numpy() for name, array in (named(cell) | outer).items()}
        np.savez(place / "model.npz", **arrays)
        for threads in (1, 2):
            given = {"what": "draw", "cell": "lstm", "arrays": str(place / "model.npz"), "batch": LANES}
            step = _asked(onnx, f"draw {threads}", threads=threads, **given)[0]
            runs[f"{ONNX}, {threads} threads, {LANES}"] = _times(step, tokens)
    return runs


def _times(run: Run, tokens: int) -> Run:
    """A pass that is so many of another."""
    return lambda passes: run(passes * tokens)


START = """
import time; began = time.perf_counter()
import sys
from throughtime import runtime
text = runtime.load(sys.argv[1]).generate(max_tokens=1000, seed=0)
next(text)
first = time.perf_counter() - began
for _ in text: pass
print(first, *(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def _start(folder: Path) -> dict[str, float]:
    """A process from its start: seconds to the first token, megabytes at most."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", START, folder], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - began
    first, kilobytes = map(float, done.stdout.split())
    bare = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return {"seconds": first + time.perf_counter() - bare, "megabytes": kilobytes / 1e3, "whole": whole}


# ---- The page.


def _ratios(seconds: Seconds, of: str, beside: Sequence[str]) -> list[float]:
    """How many times as fast, turn by turn; beside the fastest of several."""
    best = min(beside, key=lambda name: statistics.median(seconds[name]))
    return [other / own for own, other in zip(seconds[of], seconds[best], strict=True)]


def _mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def _page(found: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# A model in use",
        "",
        "Times are medians over turns, ratios medians over the ratios of each turn; above 1x ours is faster. ONNX",
        "Runtime counts with one thread or two, whichever is faster.",
        "",
        "## One step of a layer, one lane, from Python",
        "",
        "Inputs as large as the layer, the state in and out. PyTorch is `nn.GRU` or `nn.LSTM` called with one step.",
        "",
    ]
    names = list(found["steps"][0]["seconds"])
    header = ["", *(f"{name}, µs" for name in names)]
    rows = [
        [f"{step['cell']} {step['size']}", *(f"{1e6 * statistics.median(step['seconds'][name]):.1f}" for name in names)]
        for step in found["steps"]
    ]
    lines += [*table(header, rows), ""]
    onnx = [name for name in names if name.startswith(ONNX)]
    rivals = {PYTORCH: [PYTORCH]} | ({ONNX: onnx} if onnx else {})
    sizes = [step["size"] for step in found["steps"] if step["cell"] == found["steps"][0]["cell"]]
    rows = []
    for cell in CELLS:
        for weights in WEIGHTS:
            for rival, beside in rivals.items():
                medians = [
                    statistics.median(_ratios(step["seconds"], f"{OURS} {weights}", beside))
                    for step in found["steps"]
                    if step["cell"] == cell
                ]
                each = [f"{median:.1f}x" for median in medians]
                rows.append([f"{cell} {weights} beside {rival}", *each, f"{_mean(medians):.1f}x"])
    lines += [*table(["", *map(str, sizes), "geometric mean"], rows), ""]
    lines += [f"## A text of {found['tokens']:,} characters, from an LSTM of {found['hidden']} units", ""]
    rows = [
        [
            name,
            f"{1e3 * statistics.median(seconds):.1f} ms",
            in_quartiles(_ratios(found["text"], name, [PYTORCH]), ".1f", "x"),
        ]
        for name, seconds in found["text"].items()
    ]
    lines += [*table(["", "time", "beside PyTorch"], rows), ""]
    start = {key: statistics.median(each[key] for each in found["start"]) for key in ("seconds", "megabytes")}
    lines += [
        f"A new process has its first token after {start['seconds']:.2f} s, and takes "
        f"{start['megabytes']:.0f} MB at most.",
        "",
        f"## {LANES} texts at once, from the same model",
        "",
    ]
    tokens = max(1, found["tokens"] // 20)
    onnx = [name for name in found["streams"] if name.startswith(ONNX)]
    rows = []
    for name, seconds in found["streams"].items():
        lanes = int(name.rpartition(" ")[2])
        row = [name, f"{tokens * lanes / statistics.median(seconds):,.0f}"]
        one = name.removesuffix(f" {LANES}") + " 1"
        row.append(_more(found["streams"], name, one) if lanes > 1 and one in found["streams"] else "")
        row.append(in_quartiles(_ratios(found["streams"], name, onnx), ".1f", "x") if onnx and lanes > 1 else "")
        rows.append(row)
    lines += [*table(["", "tokens/s", "beside one stream", f"beside {ONNX}"], rows), ""]
    lines += [
        f"PyTorch and {ONNX} run the same batch a step at a time; {ONNX}'s tokens are drawn in NumPy.",
        "",
        f"Engine: {found['engine']}; {versions}. All figures: [stream.json](stream.json).",
        "",
        f"Made by `{found['command']}` on {found['machine']}.",
    ]
    return lines


def _more(seconds: Seconds, name: str, one: str) -> str:
    """How many times the tokens of one stream."""
    return in_quartiles([LANES * value for value in _ratios(seconds, name, [one])], ".1f", "x")


if __name__ == "__main__":
    main()
