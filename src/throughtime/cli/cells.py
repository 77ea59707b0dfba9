"""`throughtime cells`: the cells and their equations."""

from __future__ import annotations

import click

from throughtime.cli.run_argument import importing
from throughtime.cli.streams import say, say_json


@click.command("cells", short_help="List the cells, their equations and sizes.")
@click.option("--input", "input_size", metavar="D", default=256, show_default=True, help="Input size to count with.")
@click.option("--hidden", metavar="H", default=256, show_default=True, help="Hidden size to count with.")
@importing(exposed=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(input_size: int, hidden: int, imported: tuple[str, ...], as_json: bool) -> None:
    """List the cells, one step of each as equations, and its parameters at a given size."""
    import torch

    from throughtime import cells

    registered = {cells.family(name).cell for name in cells.names()}
    others = [name for name in imported if cells.family(name).cell not in registered]
    found = {}
    for name in [*cells.names(), *others]:
        with torch.device("meta"):
            cell = cells.create(name, input_size, hidden)
        parameters = sum(parameter.numel() for parameter in cell.parameters())
        found[name] = {
            "equations": cell.equations,
            "parameters": parameters,
            "engine": cell.engine,
            "reason": cell.reason,
        }
    if as_json:
        say_json({"input_size": input_size, "hidden_size": hidden, "cells": found})
        return
    for name, facts in found.items():
        say(
            f"{name}: {facts['parameters']:,} parameters at D={input_size}, H={hidden}; run by {facts['engine']} "
            f"({facts['reason']})"
        )
        for line in str(facts["equations"]).splitlines():
            say(f"    {line}")
        say()
