"""`throughtime train`: from a text to a run folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from throughtime.cli.run_argument import import_option
from throughtime.cli.streams import say, say_error, say_in_the_end, say_text
from throughtime.machine import rank

if TYPE_CHECKING:
    from types import ModuleType

    from throughtime.training.display import Display
    from throughtime.training.loop import Result

OPTIONS = {
    "tokens": "text.tokens",
    "encoding": "text.encoding",
    "valid": "text.valid",
    "test": "text.test",
    "cell": "model.cell",
    "hidden": "model.hidden_size",
    "layers": "model.layers",
    "minutes": "training.minutes",
    "epochs": "training.epochs",
    "steps": "training.steps",
}
"""Options that are short for a setting."""


class _Sizes(click.ParamType[int | list[int]]):
    """A whole number, or several with commas between them."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | list[int]:
        try:
            sizes = [int(size) for size in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a whole number, nor several with commas between them.", param, ctx)
        return sizes if len(sizes) > 1 else sizes[0]


@click.command("train", short_help="Train a language model on a text.")
@click.argument("texts", metavar="[TEXT ...]", nargs=-1)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Run folder; default: a new one in runs/.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, from its newest checkpoint that holds.")
@click.option("--recipe", metavar="NAME|FILE.toml", help="Settings to begin with: demo, shakespeare-char, or a file.")
@click.option("--set", "assignments", metavar="a.b=value", multiple=True, help="Change one setting; may be repeated.")
@click.option("--tokens", type=click.Choice(["byte", "char", "word", "bpe"]), help="What a token is.")
@click.option("--encoding", metavar="NAME", help="Encoding of the texts; default: utf-8.")
@click.option("--cell", metavar="NAME", help="Kind of cell; `throughtime cells` lists them.")
@import_option
@click.option("--hidden", metavar="N[,N...]", type=_Sizes(), help="Units of every layer; with commas, of each.")
@click.option("--layers", metavar="N", type=int, help="Layers.")
@click.option("--minutes", metavar="M", type=float, help="Train for so long.")
@click.option("--epochs", metavar="E", type=float, help="Train for so many passes over the text.")
@click.option("--steps", metavar="N", type=int, help="Train for so many optimizer steps.")
@click.option("--valid", metavar="F", multiple=True, help="Text to validate on, instead of a share of TEXT.")
@click.option("--test", metavar="F", multiple=True, help="Text to test on, instead of a share of TEXT.")
@click.option("--processes", metavar="N", type=click.IntRange(1), default=1, help="Processes that share the lanes.")
@click.option("--dry-run", is_flag=True, help="Read the text, build the model, say what would happen; train nothing.")
@click.option("--print-recipe", is_flag=True, help="Print every setting as TOML that --recipe takes; train nothing.")
def command(
    texts: tuple[str, ...],
    out: Path | None,
    resume: bool,
    processes: int,
    recipe: str | None,
    assignments: tuple[str, ...],
    dry_run: bool,
    print_recipe: bool,
    **options: Any,
) -> None:
    """Train a language model on TEXT: files, folders, globs, - for standard input, builtin or builtin:stdlib.

    Ctrl-C ends the training with what has been learned (exit code 130), SIGTERM after a checkpoint (143). A run that
    was ended, by whatever, goes on with --out DIR --resume; it knows its text and its settings.
    """
    from throughtime import recipe as recipes

    changes: dict[str, Any] = {"text": {"sources": list(texts)}} if texts else {}
    for assignment in assignments:
        changes = recipes.merge(changes, recipes.parse_assignment(assignment))
    for name, path in OPTIONS.items():
        value = list(options[name]) if isinstance(options[name], tuple) else options[name]
        if value is not None and value != []:
            section, key = path.split(".")
            changes = recipes.merge(changes, {section: {key: value}})
    changes = recipes.change(recipes.read(recipe) if recipe else {}, changes)
    out = None if out is None else recipes.expanded(out)
    if resume:
        if out is None or dry_run or print_recipe:
            raise click.UsageError("--resume trains, and needs --out, the folder of the run to go on with")
        _train(
            lambda: _training().resume(out, changes, _display()),
            lambda: _checks().check_resume(out, changes, processes),
            processes,
        )
        return
    settings = recipes.build(changes)
    if print_recipe:
        say_text(recipes.to_toml(settings))
        return
    if not settings.text.sources:
        raise click.UsageError("no text is named: give TEXT, or `builtin` for the text that Python carries")
    if dry_run:
        for line in _training().dry_run(settings):
            say(line)
        return
    if processes > 1 and out is None:
        raise click.UsageError("--processes needs --out: were they started again, the run would be hard to find")
    _train(
        lambda: _training().train(settings, out, _display()),
        lambda: _checks().check_start(settings, out, processes),
        processes,
    )


def _train(job: Callable[[], Result], check: Callable[[], None], processes: int) -> None:
    """Do the job, or see that it can be done and start processes that do it."""
    if processes == 1 and "RANK" not in os.environ:
        _report(job())
        return
    from throughtime.training import launcher
    from throughtime.training.ranks import PeerError

    if launcher.launched():
        launcher.watch_launcher()
        try:
            _report(job())
        except PeerError:
            sys.exit(launcher.PEER_LOST)  # the launcher says what happened
    elif processes == 1:
        _report(job())
    elif "RANK" in os.environ:
        raise click.UsageError("torchrun starts the processes here; leave --processes out")
    else:
        check()
        # -P: what lies in the working directory is not taken for a module
        sys.exit(launcher.launch([sys.executable, "-P", "-m", "throughtime", *sys.argv[1:]], processes, say_error))


def _checks() -> ModuleType:
    from throughtime.training import start

    return start


def _training() -> ModuleType:
    from throughtime.training import train

    return train


def _display() -> Display:
    from throughtime.training.display import for_this_terminal

    return for_this_terminal()


def _report(result: Result) -> None:
    if rank():
        return  # the first process speaks for all
    from throughtime.training.display import quoted

    lines = [f"{result.steps:,} steps in {result.seconds:.0f} s ({result.ending})"]
    if result.measure is not None:
        lines.append(f"{result.split} split: {result.measure.line()}")
    if result.sample:
        lines += ["sample:", *quoted(result.sample).split("\n")]
    lines += [f"curve:  {result.folder / 'curve.svg'}", f"run:    {result.folder}"]
    say_in_the_end(lines)
    if result.ending == "interrupted":
        raise KeyboardInterrupt
