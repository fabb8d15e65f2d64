"""A command's way to the servers: settings, a producer that is closed again, and servers' faults in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dream.arguments import MAX_ID
from dream.errors import BrokerUnavailable, DreamError
from dream.process import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["AsJson", "DreamId", "confirm", "explained", "load_quietly", "opened", "reached"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DreamId = Annotated[int, typer.Option(min=1, max=MAX_ID, metavar="N", help="The dream that the pictures belong to.")]


def load_quietly() -> Settings:
    """The settings, and logging for a command whose output is read by a person: as text, and without what is routine.

    What is set on purpose (`DREAM_LOG_LEVEL=debug`, `DREAM_LOG_FORMAT=json`) stays.
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
    """A producer for the time of a command; its connections are closed at the end.

    Raises:
      DatabaseUnavailable: the database is away, refuses, or has no tables yet.
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
    """Turn whatever a broker's client raises that does not reach its server, or is refused there, into one line.

    Parameters:
      what: the option or variable that names the server, perhaps with its URL.

    Raises:
      BrokerUnavailable
    """
    from pika.exceptions import AMQPError
    from redis.exceptions import RedisError

    from dream.log import redact

    try:
        yield
    except (AMQPError, RedisError, OSError) as error:
        reason = str(error) or f"no answer ({type(error).__name__})"
        raise BrokerUnavailable(redact(f"{what}: {reason}")) from error


def confirm(question: str, otherwise: str) -> None:
    """Go on only with a yes.

    Parameters:
      otherwise: what to say where there is nobody to ask.

    Raises:
      DreamError: there is nobody to ask, or the answer was no.
      typer.Exit: Ctrl-C at the question, with exit code 130.
    """
    if not sys.stdin.isatty():
        raise DreamError(otherwise)
    try:
        is_agreed = typer.confirm(question, err=True)
    except typer.Abort as abort:  # for Ctrl-C and for the end of the input alike
        if isinstance(abort.__context__, KeyboardInterrupt):
            typer.echo("\ndream: nothing was done", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        is_agreed = False
    if not is_agreed:
        raise DreamError("nothing was done")
