"""`throughtime doctor`: what is here, what runs, what is missing and how to get it."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import Any

import click

from throughtime.machine import processor, usable_threads
from throughtime.version import VERSION

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@click.command("doctor", short_help="Say what is here, what runs, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(as_json: bool) -> None:
    """Say which versions are here, on which processor, what runs the cells, what is missing and how to get it."""
    report = examine()
    if as_json:
        click.echo(json.dumps(report))
        return
    for key, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {fact}" for name, fact in value.items())
        click.echo(f"{key:<10}{', '.join(value) if isinstance(value, list) else value}")


def examine() -> dict[str, Any]:
    """The report."""
    from throughtime import engine
    from throughtime.text.cache import cache_folder

    packages = ("numpy", "tokenizers", "safetensors", "pydantic", "torch", "matplotlib")
    versions = {name: _version(name) for name in packages}
    model, flags = processor()
    missing = [f"{name}: pip install 'throughtime[train]'" for name, version in versions.items() if version is None]
    cache = cache_folder()
    kept = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return {
        "throughtime": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": model,
        "sets": [name for name in INSTRUCTION_SETS if name in flags],
        "threads": usable_threads(),
        "packages": {name: version or "missing" for name, version in versions.items()},
        "engine": engine.describe(),
        "cache": f"{cache} ({kept / 1e6:,.1f} MB; may be deleted at any time)",
        "missing": missing or ["nothing"],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
