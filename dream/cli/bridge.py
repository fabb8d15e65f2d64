"""The command that moves a live Celery system over: `dream bridge`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.access import explained, load_quietly, reached
from dream.cli.plain_help import PlainHelp
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.bridge.handover import Handover, Moved
    from dream.bridge.parked import ParkingPlace
    from dream.bridge.sources import Source
    from dream.compat.app import Celery
    from dream.settings import Settings

__all__ = ["register"]

AppName = Annotated[
    str | None,
    typer.Option("--app", "-A", metavar="APP", help="The app whose tasks the workers run, as in shop.celery:app."),
]

LeavePending = Annotated[bool, typer.Option("--leave-pending", help="Store no FAILURE for parked tasks.")]

Separator = Annotated[
    str,
    typer.Option(metavar="TEXT", help="Redis: the sep of the senders' broker_transport_options.", show_default=False),
]

#: Where what is parked is kept.
_OURS = "DREAM_REDIS_URL"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    group.callback()(bridge)
    group.command()(parked)
    group.command(cls=PlainHelp)(replay)
    app.add_typer(group, name="bridge")


def bridge(
    context: typer.Context,
    source_url: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Celery's broker: redis://… or amqp://….", show_default=False),
    ] = None,
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Celery's queues, separated by commas; all by default.")
    ] = None,
    app: AppName = None,
    check: Annotated[bool, typer.Option("--check", help="Only count what waits, and what would be parked.")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="End when nothing waits any more.")] = False,
    take_unacked: Annotated[
        bool, typer.Option("--take-unacked", help="Redis: take what Celery's workers held; none of them may run.")
    ] = False,
    visibility_timeout_s: Annotated[
        float,
        typer.Option(min=0, metavar="S", help="Redis: take what a Celery worker has held for S seconds."),
    ] = 3600,
    key_prefix: Annotated[str, typer.Option(metavar="TEXT", help="Redis: the global_keyprefix of the senders.")] = "",
    separator: Separator = "\x06\x16",
    leave_pending: LeavePending = False,
) -> None:
    """Move messages of Celery's producers to dream's workers, until Ctrl-C (or with --drain until nothing waits)."""
    if context.invoked_subcommand is not None:
        return
    if source_url is None:
        raise InvalidArguments("--from must name Celery's broker: redis://… or amqp://…")
    from dream.bridge import open_source
    from dream.compat.routes import queues_of

    settings, found = _loaded(app)
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
        _check(source, handover) if check else _move(source, handover, drain=drain)


def parked(app: AppName = None) -> None:
    """List what was not understood: id, queue, task, when, why."""
    from dream.bridge.parked import ParkingPlace
    from dream.cli.showing import clean, show_rows

    settings, _ = _loaded(app)
    with closing(ParkingPlace(settings)) as place, reached(_OURS):
        found = sorted(place.all(), key=lambda each: each.at)
    if not found:
        typer.echo("nothing is parked", err=True)
    rows = [(each.taken.tag, each.taken.queue, clean(each.task), each.at, clean(each.reason)) for each in found]
    show_rows(("id", "queue", "task", "parked at", "why"), rows)


def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", show_default=False, help="Task IDs, as `dream bridge parked` prints them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    app: AppName = None,
    leave_pending: LeavePending = False,
) -> None:
    """Hand parked messages over; what is still not understood stays parked."""
    from dream.bridge.replaying import replayed

    if bool(ids) == everything:
        raise InvalidArguments("name the messages by their ids, or say --all")
    settings, found = _loaded(app)
    with _handing_over(settings, found, tells=not leave_pending) as (handover, place), reached(_OURS):
        moved = replayed(place, handover, ids)
    typer.echo(f"handed over {moved.handed_over}, duplicates {moved.duplicates}, still parked {moved.parked}")


def _loaded(app_name: str | None) -> tuple[Settings, Celery]:
    """The app of that name, or of `DREAM_APP`, with all its tasks, and the settings that its workers have."""
    from dream.compat.conf.adoption import adopt
    from dream.compat.finding import finalize, find_app
    from dream.compat.tasks import app as own

    load_quietly()
    app = find_app(app_name)
    if app is not own:
        finalize(app)
    return adopt(app.conf), app


@contextmanager
def _handing_over(settings: Settings, app: Celery, *, tells: bool) -> Iterator[tuple[Handover, ParkingPlace]]:
    from dream import producer
    from dream.bridge.handover import Handover
    from dream.bridge.own import OwnTasks
    from dream.bridge.parked import ParkingPlace
    from dream.compat.tasks import app as own

    with explained(), closing(producer.default()) as ours, closing(ParkingPlace(settings)) as place:
        handover = Handover(settings, app, OwnTasks(own, ours), ours.broker, place, tells=tells)
        with closing(handover):
            yield handover, place


def _check(source: Source, handover: Handover) -> None:
    from dream.bridge.protocol import task_of
    from dream.cli.showing import clean, show_rows

    waiting: Counter[tuple[str, str, str]] = Counter()
    for taken in source.peek():
        refused, _ = handover.sort([taken])
        fate = f"parked: {refused[0][1]}" if refused else "moved"
        waiting[taken.queue, task_of(taken), "held by a worker of Celery's" if taken.is_held else fate] += 1
    if not waiting:
        typer.echo("nothing waits", err=True)
        return
    rows = [(queue, clean(task), count, clean(fate)) for (queue, task, fate), count in sorted(waiting.items())]
    show_rows(("queue", "task", "messages", "would be"), rows)


def _move(source: Source, handover: Handover, *, drain: bool) -> None:
    from dream.bridge import Bridge
    from dream.process import StopSignal

    begun = time.monotonic()
    shown = _Progress(source)
    with closing(StopSignal()) as signal:
        moved = Bridge(source, handover).run(signal.wait, drain=drain, report=shown.report)
    typer.echo(f"{_said(moved)}; in {time.monotonic() - begun:.1f} s")


class _Progress:
    """A line on standard error, where there is something to say."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._told, self._told_at, self._waited = 0, time.monotonic(), -1  # the first line is said anyway

    def report(self, moved: Moved) -> None:
        """Say what was moved in all, how fast since the last time, and what waits."""
        now, waiting = time.monotonic(), self._source.waiting()
        rate = (moved.total - self._told) / max(0.001, now - self._told_at)
        if (moved.total, waiting) != (self._told, self._waited):
            sys.stderr.write(f"{_said(moved)}; {rate:.0f} a second, {waiting} wait\n")
            sys.stderr.flush()
        self._told, self._told_at, self._waited = moved.total, now, waiting


def _said(moved: Moved) -> str:
    return f"handed over {moved.handed_over}, duplicates {moved.duplicates}, parked {moved.parked}"
