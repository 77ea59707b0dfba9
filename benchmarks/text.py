"""How fast text becomes ids, and in how much memory.

Speeds are of text in memory, from pieces of bytes to arrays of ids; byte pairs beside `encode_batch` of the library
itself on the same pieces, timed in turn; and beside them our workers. With --large, a corpus of so many gigabytes is
made from the standard library's source, tokenised and trained on in a process of its own, whose data are limited
(`ulimit -d`), its workers' too; the largest resident memory of a process is told.

Writes docs/benchmarks/text.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from throughtime.machine import usable_threads
from throughtime.text.corpus import Piece, open_corpus, read_pieces
from throughtime.text.settings import Text
from throughtime.text.tokenizer import Tokenizer, fit
from throughtime.text.workers import encoded
from timing import PAGES, command, in_quartiles, machine, repeat

PAGE = PAGES / "text.md"
TURNS = 7
BYTES = 24_000_000

TRAIN = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_DATA, [int(sys.argv[3])] * 2)
import throughtime
from throughtime.recipe import build
from throughtime.text.dataset import prepare
tree = json.loads(sys.argv[1])
began = time.perf_counter()
prepare(build(tree).text)
tokenised = time.perf_counter() - began
began = time.perf_counter()
prepare(build(tree).text)
again = time.perf_counter() - began
result = throughtime.train(tree, sys.argv[2])
print(json.dumps({"tokenise": tokenised, "again": again, "steps": result.steps,
                  "resident": [1024 * resource.getrusage(who).ru_maxrss
                               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=float, default=0.0, metavar="GB", help="size of the corpus that is made")
    parser.add_argument("--limit", type=int, default=1500, metavar="MB", help="of data a process (default: 1500)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["THROUGHTIME_CACHE"] = str(Path(folder, "cache"))
        lines = [*_speeds(), "", *(_large(options, Path(folder)) if options.large else [])]
    PAGE.write_text("\n".join(["# Text to ids", "", *lines, f"Made by `{command()}` on {machine()}.", ""]), "utf-8")
    print(PAGE.read_text("utf-8"))


def _speeds() -> list[str]:
    corpus = open_corpus(["builtin:stdlib"], Text())
    rows = [
        "| token | MB/s | cores | beside the library's `encode_batch` | workers, MB/s | beside one process |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in ("byte", "char", "word", "bpe"):
        text = Text.model_validate({"tokens": kind})
        sample = [piece.data for piece in read_pieces(corpus, 1 << 16)]
        tokenizer = fit(text, sample)
        pieces = [piece.data for piece in read_pieces(corpus, tokenizer.piece_limit)]
        pieces = pieces * max(1, BYTES // sum(map(len, pieces)))
        size = sum(map(len, pieces))
        texts = [piece.decode() for piece in pieces]
        library = tokenizer.library

        def ours(pieces: list[bytes] = pieces, encode: Callable[[list[bytes]], object] = tokenizer.encode_many) -> None:
            for first in range(0, len(pieces), 32):
                encode(pieces[first : first + 32])

        def theirs(texts: list[str] = texts, encode: Callable[..., object] = library.encode_batch) -> None:
            for first in range(0, len(texts), 32):
                encode(texts[first : first + 32], add_special_tokens=False)

        if kind in ("byte", "char"):
            seconds = statistics.median(repeat(ours)(1) for _ in range(TURNS))
            rows.append(f"| {kind} | {size / seconds / 1e6:,.0f} | 1 | | | |")
            continue

        def workers(pieces: list[bytes] = pieces, tokenizer: Tokenizer = tokenizer) -> None:
            batches = ([Piece(piece, False) for piece in pieces[n : n + 32]] for n in range(0, len(pieces), 32))
            for _ in encoded(tokenizer, batches, 0, usable_threads()):
                pass

        turns = [[repeat(who)(1) for who in (theirs, ours, workers)] for _ in range(TURNS)]
        speeds = [size / statistics.median(turn[who] for turn in turns) / 1e6 for who in (1, 2)]
        beside = [in_quartiles([turn[a] / turn[b] for turn in turns], unit="x") for a, b in ((0, 1), (1, 2))]
        rows.append(
            f"| {kind} | {speeds[0]:,.1f} | {usable_threads()} | {beside[0]} | {speeds[1]:,.1f} | {beside[1]} |"
        )
    return [
        *rows,
        "",
        f"The standard library's source, {size / 1e6:,.0f} MB, medians of {TURNS} turns (quartiles); above 1x we are "
        "faster. One process encodes with a thread a core; workers, as many, are started for each turn anew.",
    ]


def _large(options: argparse.Namespace, folder: Path) -> list[str]:
    source = b"".join(piece.data for piece in read_pieces(open_corpus(["builtin:stdlib"], Text()), 1 << 20))
    path = folder / "large.txt"
    with path.open("wb") as file:
        written = 0
        while written < options.large * 1e9:
            # Every copy has a number, so that the text is not the same over and over.
            written += file.write(b"# copy %d\n" % written + source)
    rows = [
        "| token | tokenised in | found again in | resident at most | a worker |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in ("char", "bpe"):
        tree = {
            "text": {"sources": [str(path)], "tokens": kind, "split": [0.999, 0.001, 0.0]},
            "model": {"hidden_size": 64},
            "training": {"steps": 300, "validations": 1, "sample_tokens": 0},
        }
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, json.dumps(tree), str(folder / kind), str(options.limit * 1_000_000)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = json.loads(done.stdout)
        own, worker = (f"{resident / 1e6:,.0f} MB" if resident else "" for resident in found["resident"])
        rows.append(f"| {kind} | {found['tokenise']:,.0f} s | {found['again']:,.1f} s | {own} | {worker} |")
    return [
        *rows,
        "",
        f"{written / 1e9:.2f} GB of text: vocabulary, ids, then {found['steps']:,} steps of training, with "
        f"{options.limit:,} MB of data at most for each process.",
        "",
    ]


if __name__ == "__main__":
    main()
