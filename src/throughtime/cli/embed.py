"""`throughtime embed`: a model as one file for a C program."""

from __future__ import annotations

from pathlib import Path

import click

from throughtime.cli.output import new_file, sum_up
from throughtime.cli.run_argument import run_argument, weights_option


@click.command("embed", short_help="Write a model as one file for a C program.")
@run_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Write over OUT.")
@weights_option
def command(run: Path, out: Path, force: bool, weights: str | None) -> None:
    """Write the model in RUN to the file OUT, which `tt_load` of the C library reads.

    The header and the library lie in the package's folder.
    """
    from throughtime import folder
    from throughtime.runtime.embedded import embed

    content = embed(run, weights)
    with new_file(out, force, [folder.find(run).folder / folder.WEIGHTS]) as file:
        file.write(content)
    package = Path(folder.__file__).parent
    library = package / "lib" / "libthroughtime.a"
    found = library if library.exists() else "none: the package was installed without a C++ compiler"
    lines = [
        f"{out}: {len(content):,} bytes",
        f"header:  {package / 'include' / 'throughtime.h'}",
        f"library: {found}",
    ]
    sum_up(out, lines)
