"""`dream bridge`: move messages of a live Celery system to dream."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import Command, CommandGroup, WrongUsage, as_usage, explained, load_quietly, reached

if TYPE_CHECKING:
    from dream.bridge.handover import Handover, Moved
    from dream.bridge.parked import ParkingPlace
    from dream.bridge.sources import Source
    from dream.compat.app import Celery
    from dream.settings import Settings

__all__ = ["register"]

AppName = Annotated[
    str | None,
    typer.Option("--app", "-A", metavar="APP", help="The app whose tasks the workers run, such as shop.celery:app."),
]

LeavePending = Annotated[bool, typer.Option("--leave-pending", help="Store no FAILURE for parked tasks.")]

Queues = Annotated[
    str | None,
    typer.Option(
        metavar="A,B", help="Celery's queues, separated by commas; by default those that Redis or the app names."
    ),
]

Separator = Annotated[
    str,
    typer.Option(metavar="TEXT", help="Redis: `sep` in the senders' broker_transport_options.", show_default=False),
]

SourceUrl = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="URL",
        envvar="CELERY_BROKER_URL",
        help="Celery's broker: redis://… or amqp://….",
        show_default=False,
    ),
]

VisibilityTimeout = Annotated[
    float,
    typer.Option(min=0, metavar="S", help="Redis: also take what a Celery worker has not acknowledged for S seconds."),
]

#: The server of parked messages.
_PARKED_AT = "DREAM_REDIS_URL"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    group = typer.Typer(cls=CommandGroup, invoke_without_command=True, rich_markup_mode=None)
    group.callback()(bridge)
    for command in (parked, replay):
        group.command(cls=Command)(command)
    app.add_typer(group, name="bridge")


def bridge(
    context: typer.Context,
    source_url: SourceUrl = None,
    queues: Queues = None,
    app: AppName = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only count the waiting messages, and those that would be parked.")
    ] = False,
    drain: Annotated[bool, typer.Option("--drain", help="End when no message waits any more.")] = False,
    take_unacked: Annotated[
        bool,
        typer.Option(
            "--take-unacked", help="Redis: also take what Celery's workers have not acknowledged; none of them may run."
        ),
    ] = False,
    visibility_timeout_s: VisibilityTimeout = 3600,
    key_prefix: Annotated[str, typer.Option(metavar="TEXT", help="Redis: `global_keyprefix` of the senders.")] = "",
    separator: Separator = "\x06\x16",
    leave_pending: LeavePending = False,
) -> None:
    """Move messages of Celery's producers to dream's workers. It ends at Ctrl-C, or with --drain when none waits."""
    if context.invoked_subcommand is not None:
        return
    if source_url is None:
        raise WrongUsage("--from must name Celery's broker: redis://… or amqp://…")
    from dream.bridge import open_source
    from dream.compat.queues import queues_of

    settings, found = _loaded(app)
    with as_usage():
        source = open_source(
            settings,
            source_url,
            [name.strip() for name in (queues or "").split(",") if name.strip()],
            app_queues=queues_of(found),
            take_unacked=take_unacked,
            visibility_timeout_s=visibility_timeout_s,
            key_prefix=key_prefix,
            separator=separator,
        )
    handing_over = _handing_over(settings, found, tells=not leave_pending)
    with closing(source), handing_over as (handover, _), reached(f"--from {source_url}"):
        _check(source, handover) if check else _move(settings, source, handover, drain=drain)


def parked(app: AppName = None) -> None:
    """List parked messages: ID, queue, task, time, reason."""
    from dream.bridge.parked import ParkingPlace
    from dream.cli.showing import clean, show_rows

    settings, _ = _loaded(app)
    with closing(ParkingPlace(settings)) as place, reached(_PARKED_AT):
        found = sorted(place.all(), key=lambda each: each.at)
    if not found:
        typer.echo("no message is parked", err=True)
    rows = [(each.taken.tag, each.taken.queue, clean(each.task), each.at, clean(each.reason)) for each in found]
    show_rows(("id", "queue", "task", "parked at", "why"), rows)


def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", show_default=False, help="Task IDs, as `dream bridge parked` prints them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All parked messages.")] = False,
    app: AppName = None,
    leave_pending: LeavePending = False,
) -> None:
    """Send parked messages after all. A message that is still not understood stays parked."""
    from dream.bridge.parked import replayed

    if bool(ids) == everything:
        raise WrongUsage("name the messages by their IDs, or use --all")
    settings, found = _loaded(app)
    with _handing_over(settings, found, tells=not leave_pending) as (handover, place), reached(_PARKED_AT):
        moved = replayed(place, handover, ids)
    typer.echo(f"handed over {moved.handed_over}, duplicates {moved.duplicates}, still parked {moved.parked}")


def _loaded(app_name: str | None) -> tuple[Settings, Celery]:
    """The settings of an app's workers, and the app with all its tasks.

    Parameters:
      app_name: the app; None means that of `DREAM_APP`.
    """
    from dream.compat.adoption import adopt
    from dream.compat.finding import finalize, find_app
    from dream.compat.host import host
    from dream.work.presence import refuse_wrong_redis

    load_quietly()
    app = find_app(app_name)
    if app is not host().default_app():
        finalize(app)
    settings = adopt(app.conf)
    refuse_wrong_redis(settings)
    return settings, app


@contextmanager
def _handing_over(settings: Settings, app: Celery, *, tells: bool) -> Iterator[tuple[Handover, ParkingPlace]]:
    from dream.bridge.handover import Handover
    from dream.bridge.parked import ParkingPlace
    from dream.compat.host import host
    from dream.observe import sentry, tracing
    from dream.work import connection

    sentry.set_up(settings)
    tracing.set_up(settings, "dream-bridge")  # a connection would give no name
    with explained(), closing(connection.default()) as ours, closing(ParkingPlace(settings)) as place:
        handover = Handover(settings, app, host().acceptor(), ours.broker, place, tells=tells)
        with closing(handover):
            yield handover, place


def _check(source: Source, handover: Handover) -> None:
    from dream.bridge.protocol import task_of
    from dream.cli.showing import clean, show_rows

    waiting: Counter[tuple[str, str, str]] = Counter()
    for taken in source.peek():
        refused, _ = handover.sort([taken])
        fate = f"parked: {refused[0][1]}" if refused else "moved"
        waiting[taken.queue, task_of(taken), "held by a Celery worker" if taken.is_held else fate] += 1
    if not waiting:
        typer.echo("no message waits", err=True)
        return
    rows = [(queue, clean(task), count, clean(fate)) for (queue, task, fate), count in sorted(waiting.items())]
    show_rows(("queue", "task", "messages", "would be"), rows)


def _move(settings: Settings, source: Source, handover: Handover, *, drain: bool) -> None:
    from dream.bridge import Bridge
    from dream.observe import exposition
    from dream.work.presence import Presence
    from dream.work.process import StopSignal, say_stopping

    exposition.start(settings, "bridge")
    begun = time.monotonic()
    shown = _Progress(source)
    with closing(StopSignal()) as signal, Presence(settings, "bridge"):
        bridge = Bridge(source, handover)
        moved = bridge.run(signal.wait, drain=drain, report=shown.report, lives=_Life(settings).shown)
        say_stopping()
    typer.echo(f"{_counts(moved)}; in {time.monotonic() - begun:.1f} s")


class _Progress:
    """Writes a line to standard error when a count has changed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._told, self._told_at, self._waited = 0, time.monotonic(), -1  # the first line is always written

    def report(self, moved: Moved) -> None:
        """Write the counts, the rate since the last line, and how many messages wait."""
        now, waiting = time.monotonic(), self._source.waiting()
        rate = (moved.total - self._told) / max(0.001, now - self._told_at)
        if (moved.total, waiting) != (self._told, self._waited):
            sys.stderr.write(f"{_counts(moved)}; {rate:.0f} a second, {waiting} wait\n")
            sys.stderr.flush()
        self._told, self._told_at, self._waited = moved.total, now, waiting


class _Life:
    """Reports the first step as readiness, and each further step as a sign of life."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._is_ready = settings, False

    def shown(self, answered: bool) -> None:
        from dream.work.process import say_ready, show_life

        if answered and not self._is_ready:
            self._is_ready = True
            say_ready(self._settings, doing="moves messages")
        show_life(self._settings, doing="moves messages" if answered else "waits for a server")


def _counts(moved: Moved) -> str:
    return f"handed over {moved.handed_over}, duplicates {moved.duplicates}, parked {moved.parked}"
