"""A large model in two processes: whole in each of them, and in shards; speed, and the memory that a process takes.

Both take turns. Few tokens are read at a step: the model is then what takes memory, and what is sent of it takes time.

Writes docs/benchmarks/shards.json and shards.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from processes import in_processes
from throughtime import recipe as recipes
from timing import PAGES, command, in_quartiles, machine, quartiles, table

STEPS = 8
KINDS = {"whole": False, "in shards": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1536, metavar="H", help="units of a layer (default: 1536)")
    parser.add_argument("--layers", type=int, default=3, help="default: 3")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    options = parser.parse_args()
    paces: dict[str, list[float]] = {kind: [] for kind in KINDS}
    resident: dict[str, list[int]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for kind, shard in KINDS.items():
                run = Path(folder, f"{turn}-{shard}")
                pace, most = in_processes(_recipe(options.hidden, options.layers, shard), 2, run)
                paces[kind].append(pace)
                resident[kind].append(most)
        begin = json.loads((run / "journal.jsonl").read_text("utf-8").splitlines()[0])
    result = {
        "made_by": command(),
        "machine": machine(),
        "hidden_size": options.hidden,
        "layers": options.layers,
        "parameters": begin["parameters"],
        "tokens_per_second": paces,
        "resident_bytes": resident,
    }
    rows = [[kind, f"{quartiles(paces[kind])[1]:,.0f}", f"{quartiles(resident[kind])[1] / 1e6:,.0f}"] for kind in KINDS]
    ratios = [dealt / whole for whole, dealt in zip(*paces.values(), strict=True)]
    page = [
        "# A model in shards",
        "",
        *table(["in two processes the model is", "tokens/s", "MB a process"], rows),
        "",
        f"A GRU of {options.layers} layers of {options.hidden:,} units, {begin['parameters']:,} parameters "
        f"({4e-6 * begin['parameters']:,.0f} MB); medians over turns of the speed and of the most that a process held, "
        f"libraries included. In shards it ran at {in_quartiles(ratios, unit='x')} of the speed.",
        "",
        f"Made by `{result['made_by']}` on {result['machine']}.",
    ]
    (options.out / "shards.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (options.out / "shards.md").write_text("\n".join(page) + "\n", "utf-8")
    print((options.out / "shards.md").read_text("utf-8"))


def _recipe(size: int, layers: int, shard: bool) -> recipes.Recipe:
    return recipes.build(
        {
            "text": {"sources": ["builtin"], "split": [0.99, 0.01, 0.0]},
            "streams": {"lanes": 8, "window": 32},
            "model": {"cell": "gru", "hidden_size": size, "layers": layers},
            "training": {"steps": STEPS, "validations": 1, "sample_tokens": 0, "signs_every": 0, "shard": shard},
        }
    )


if __name__ == "__main__":
    main()
