"""Compression by a model that has learned from a text for two minutes, beside gzip, xz and zstd at their best.

The first nine tenths of each text are learned from; the last tenth, which the model has not seen, is compressed and
brought back. gzip, xz and zstd are the programs of those names, where they are there.

Writes docs/benchmarks/compress.json and compress.md.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import throughtime
from throughtime import engine, runtime
from throughtime.runtime.compression import compress, decompress
from throughtime.text.corpus import open_corpus, read_pieces, split_corpus
from throughtime.text.settings import Text
from timing import PAGES, ROOT, command, machine, table

PROGRAMS = {"gzip -9": ["gzip", "-9"], "xz -9": ["xz", "-9", "-T1"], "zstd -19": ["zstd", "-19", "-T1"]}
TEXTS = ROOT.parent / "shared" / "data" / "text"
LARGEST = 1 << 20
"""Bytes of the unseen text that are compressed, at most."""


def main() -> None:
    options = _options()
    if engine.level() is None:
        sys.exit("there are no native kernels here to measure; see `throughtime doctor`")
    found: dict[str, Any] = {
        "command": command(),
        "machine": machine(),
        "engine": engine.describe(),
        **{name: getattr(options, name) for name in ("minutes", "hidden", "tokens")},
        "texts": {},
    }
    for text in options.texts:
        found["texts"][text.stem] = figures = _measured(text, options)
        told = ", ".join(f"{name} {facts['compressed']:,}" for name, facts in figures["by"].items())
        print(f"{text.stem}: {figures['bytes']:,} bytes: {told}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "compress.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (options.out / "compress.md").write_text("\n".join(_page(found)) + "\n", "utf-8")
    print(f"written: {options.out / 'compress.md'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [TEXTS / "shakespeare.txt", TEXTS / "war-and-peace.train.txt"]
    parser.add_argument("texts", type=Path, nargs="*", default=usual, help="files")
    parser.add_argument("--tokens", choices=["byte", "bpe"], default="byte")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training (default: 2)")
    parser.add_argument("--hidden", type=int, default=512, help="units of the GRU (default: 512)")
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER")
    options = parser.parse_args()
    for text in options.texts:
        if not text.is_file():
            sys.exit(f"there is no text {text}; name others")
    return options


def _measured(text: Path, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        settings = {
            "text": {"sources": [str(text)], "split": [0.9, 0.0, 0.1], "tokens": options.tokens},
            "streams": {"lanes": 32, "window": 64},
            "model": {"cell": "gru", "hidden_size": options.hidden},
            "training": {"minutes": options.minutes, "sample_tokens": 0},
        }
        throughtime.train(settings, place / "run")
        content = _unseen(text)[:LARGEST]
        by = {}
        for weights in ("float32", "int8"):
            by[f"throughtime {weights}"] = _ours(runtime.load(place / "run", weights), content)
        (place / "content").write_bytes(content)
        for program, words in PROGRAMS.items():
            if shutil.which(words[0]):
                by[program] = _theirs(words, place / "content")
        return {"bytes": len(content), "by": by}


def _unseen(text: Path) -> bytes:
    """What the split leaves for the test."""
    _, _, test = split_corpus(open_corpus([str(text)], Text(tokens="byte")), (0.9, 0.0, 0.1))
    return b"".join(piece.data for piece in read_pieces(test, 1 << 20))


def _ours(model: runtime.Model, content: bytes) -> dict[str, float]:
    packed = io.BytesIO()
    began = time.perf_counter()
    sizes = compress(model, io.BytesIO(content), packed)
    there = time.perf_counter()
    packed.seek(0)
    back = b"".join(decompress(model, packed))
    done = time.perf_counter()
    assert back == content
    return {"compressed": sizes.compressed, "seconds": there - began, "seconds back": done - there}


def _theirs(words: list[str], file: Path) -> dict[str, float]:
    began = time.perf_counter()
    packed = subprocess.run([*words, "-c", file], capture_output=True, check=True).stdout
    there = time.perf_counter()
    subprocess.run([words[0], "-d", "-c"], input=packed, capture_output=True, check=True)
    return {"compressed": len(packed), "seconds": there - began, "seconds back": time.perf_counter() - there}


def _page(found: dict[str, Any]) -> list[str]:
    lines = [
        "# Compression",
        "",
        f"A GRU of {found['hidden']} units over {found['tokens']} tokens learns for {found['minutes']:g} minutes from",
        "the first nine tenths of a text. The rest, at most a megabyte, is compressed by what the model predicts",
        "(`throughtime compress`), and brought back. The model itself is not counted: both sides have it.",
    ]
    for text, figures in found["texts"].items():
        rows = [
            [
                name,
                f"{facts['compressed']:,}",
                f"{8 * facts['compressed'] / figures['bytes']:.3f}",
                f"{figures['bytes'] / facts['compressed']:.2f}",
                f"{figures['bytes'] / facts['seconds'] / 1e3:,.0f}",
                f"{figures['bytes'] / facts['seconds back'] / 1e3:,.0f}",
            ]
            for name, facts in figures["by"].items()
        ]
        header = [f"{text}, {figures['bytes']:,} bytes", "bytes", "bits a byte", "ratio", "kB/s", "kB/s back"]
        lines += ["", *table(header, rows)]
    lines += [
        "",
        f"Engine: {found['engine']}. All figures: [compress.json](compress.json).",
        "",
        f"Made by `{found['command']}` on {found['machine']}.",
    ]
    return lines


if __name__ == "__main__":
    main()
