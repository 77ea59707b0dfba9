"""The command line: finds the command, turns errors into one line and an exit code.

A command's file is imported when the command, or the list of commands, is asked for; the part it serves only when it
runs. Exit codes: 0 done, 1 the job failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from throughtime.cli import streams
from throughtime.errors import SettingError, TerminationError, ThroughtimeError
from throughtime.machine import rank
from throughtime.version import VERSION

COMMANDS = (
    "train",
    "evaluate",
    "generate",
    "score",
    "inspect",
    "compress",
    "decompress",
    "quantize",
    "embed",
    "cells",
    "doctor",
)

TRACEBACK = click.Option(
    ["--traceback"], is_flag=True, expose_value=False, help="Show where in the code an error arose."
)


class Commands(click.Group):
    """The commands, each from the file of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"throughtime.cli.{cmd_name}").command
        if TRACEBACK not in command.params:
            command.params.append(TRACEBACK)
        return command

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _reader_told():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_told():
            return super().invoke(ctx)


@contextmanager
def _reader_told() -> Iterator[None]:
    """A reader of standard output that has closed it, kept from click, which would leave with exit code 1."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        raise streams.ReaderGoneError from None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def group() -> None:
    """Recurrent networks for sequences, run at the speed of the machine, with nothing hidden."""


group.params.append(TRACEBACK)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    streams.open_standard_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code: Any = group.main(arguments, prog_name="throughtime", standalone_mode=False)
        streams.flush()
    except streams.ReaderGoneError:
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        if "--traceback" in arguments:
            streams.say_error(traceback.format_exc().rstrip(), several_lines=True)
        message, code = _explain(error)
        shows_help = isinstance(error, click.exceptions.NoArgsIsHelpError)
        streams.say_error(f"rank {rank()}: {message}" if rank() else message, several_lines=shows_help)
    streams.drop_unwritten()
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: BaseException) -> tuple[str, int]:
    """What to say of an error, in a line, and the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), 2
        case click.UsageError():
            where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
            return f"throughtime: {error.format_message().rstrip('.')}{where}", 2
        case SettingError():
            return f"throughtime: {error}", 2
        case TerminationError():
            return f"throughtime: {error}", 143
        case ThroughtimeError():
            return f"throughtime: {error}", 1
        case KeyboardInterrupt() | click.Abort():
            return "throughtime: interrupted", 130
        case ModuleNotFoundError(name="torch" | "matplotlib"):
            return f"throughtime: this needs {error.name}: pip install 'throughtime[train]'", 1
        case ModuleNotFoundError(name="constriction"):
            return f"throughtime: this needs {error.name}: pip install 'throughtime[compress]'", 1
        case OSError():
            place = f" {error.filename}" if error.filename else ""
            return f"throughtime: the system refused{place}: {error.strerror or error}", 1
    line = " ".join(str(error).split())
    return f"throughtime: unforeseen {type(error).__name__}: {line}; please report it with what --traceback shows", 1
