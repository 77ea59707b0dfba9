"""`throughtime doctor`: what is here, what runs, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

import click

from throughtime.cli.streams import say, say_json
from throughtime.machine import processor, usable_threads
from throughtime.untrusted import printable
from throughtime.version import VERSION

BASE = ("numpy", "tokenizers", "safetensors", "pydantic")
EXTRAS = {"torch": "train", "matplotlib": "train", "constriction": "compress"}
"""Packages that an extra of the install brings."""
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@click.command("doctor", short_help="Say what is here, what runs, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(as_json: bool) -> None:
    """Say which versions are here, on which processor, what runs the cells, what is missing and how to get it."""
    report = examine()
    if as_json:
        say_json(report)
        return
    for key, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {fact}" for name, fact in value.items())
        say(f"{key:<13}{', '.join(value) if isinstance(value, list) else value}")


def examine() -> dict[str, Any]:
    """The report."""
    from throughtime import engine

    versions = {name: _version(name) for name in (*BASE, *EXTRAS)}
    model, flags = processor()
    missing = [
        f"{name}: pip install 'throughtime[{extra}]'" for name, extra in EXTRAS.items() if versions[name] is None
    ]
    return {
        "throughtime": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": model,
        "sets": [name for name in INSTRUCTION_SETS if name in flags],
        "threads": usable_threads(),
        "packages": {name: version or "missing" for name, version in versions.items()},
        "engine": engine.describe(),
        "cache": _cache(),
        "missing": missing or ["nothing"],
    }


def _cache() -> str:
    """Where the cache is and how large, or why there is none."""
    from throughtime.errors import ThroughtimeError
    from throughtime.text.cache import cache_folder

    try:
        cache = cache_folder()
    except ThroughtimeError as error:
        return f"none: {error}"
    kept = 0
    for folder, _, files in os.walk(cache):
        for file in files:
            with suppress(OSError):  # another process may have removed it
                kept += os.lstat(os.path.join(folder, file)).st_size
    return f"{printable(str(cache))} ({kept / 1e6:,.1f} MB; may be deleted at any time)"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
