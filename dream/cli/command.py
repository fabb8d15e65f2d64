"""The base of every command: its help, shared options, settings, a producer, and one line for a server's error."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dream.errors import BrokerUnavailable, DreamError, InvalidArguments
from dream.messages.arguments import MAX_ID
from dream.work.process import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = [
    "AsJson",
    "Command",
    "CommandGroup",
    "DreamId",
    "WrongUsage",
    "as_usage",
    "confirm",
    "explained",
    "load_quietly",
    "opened",
    "reached",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DreamId = Annotated[int, typer.Option(min=1, max=MAX_ID, metavar="N", help="The dream that the pictures belong to.")]

#: A range of numbers as Typer writes it: `1<=x<=9` or `x>=1`.
_RANGE = re.compile(r"(?:(?P<least>[\d.]+)<=x<=(?P<most>[\d.]+)|x>=(?P<only_least>[\d.]+))(?=[;\]])")


# --- help


class Command(TyperCommand):
    """A command with plain help: no types of Python, and ranges in words."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options."""
        _write_options(self, ctx, formatter)


class CommandGroup(TyperGroup):
    """A group of commands with plain help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments, options and commands."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


def _write_options(command: Command | CommandGroup, ctx: Any, formatter: Any) -> None:
    rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.get_params(ctx):
        if record := parameter.get_help_record(ctx):
            name, text = record
            kind = parameter.param_type_name
            shown = name.partition(" <")[0] if kind == "argument" else name
            rows[kind].append((shown, _RANGE.sub(_range_in_words, text)))
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        if rows[kind]:
            with formatter.section(title):
                formatter.write_dl(rows[kind])


def _range_in_words(found: re.Match[str]) -> str:
    least, most = found["least"] or found["only_least"], found["most"]
    return f"at least {least}" if most in (None, str(MAX_ID)) else f"{least} to {most}"


# --- usage


class WrongUsage(typer.BadParameter):
    """A command line that does not fit the usage. The usage is printed first, and the exit code is 2."""

    def format_message(self) -> str:
        """The sentence alone: it names its options itself."""
        return self.message


@contextmanager
def as_usage() -> Iterator[None]:
    """Turn `InvalidArguments` into `WrongUsage`: the values are those of the command line."""
    try:
        yield
    except InvalidArguments as error:
        raise WrongUsage(str(error)) from None


# --- servers


def load_quietly() -> Settings:
    """Load the settings, and log as text and only from `warning` on: a person reads the command's output.

    Values that the caller has set on purpose (`DREAM_LOG_LEVEL=debug`, `DREAM_LOG_FORMAT=json`) stay.
    """
    from dream import log, settings

    loaded = settings.load()
    quiet = {"log_level": {"info": "warning"}, "log_format": {"auto": "console"}}
    log.configure(
        loaded.model_copy(
            update={name: instead.get(getattr(loaded, name), getattr(loaded, name)) for name, instead in quiet.items()}
        )
    )
    return loaded


@contextmanager
def opened(settings: Settings) -> Iterator[Producer]:
    """Lend a producer to a command, and close its connections at the end.

    Raises:
      DatabaseUnavailable: the database does not answer, refuses, or has no tables yet.
    """
    from dream.producer import Producer

    with explained(), closing(Producer(settings)) as producer:
        yield producer


def explained() -> AbstractContextManager[None]:
    """See `dream.db.faults.explained`, which light commands do not load."""
    from dream.db import faults

    return faults.explained()


@contextmanager
def reached(what: str) -> Iterator[None]:
    """Turn a broker client's error into one line.

    Parameters:
      what: the option or variable that names the server, perhaps with its URL.

    Raises:
      BrokerUnavailable: the server does not answer, or refuses.
    """
    from dream.log import redact
    from dream.work.broker import client_errors

    try:
        yield
    except client_errors() as error:
        reason = str(error) or f"no answer ({type(error).__name__})"
        raise BrokerUnavailable(redact(f"{what}: {reason}")) from error


def confirm(question: str, otherwise: str) -> None:
    """Ask a yes-or-no question; return only after a yes.

    Parameters:
      otherwise: the error where nobody can answer.

    Raises:
      DreamError: nobody can answer, or the answer was no.
      typer.Exit: Ctrl-C at the question, with exit code 130.
    """
    if not sys.stdin.isatty():
        raise DreamError(otherwise)
    try:
        is_agreed = typer.confirm(question, err=True)
    except typer.Abort as abort:  # Typer raises it for Ctrl-C and for the end of the input
        if isinstance(abort.__context__, KeyboardInterrupt):
            typer.echo("\ndream: nothing was done", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        is_agreed = False
    if not is_agreed:
        raise DreamError("nothing was done")
