"""`dream schedule`: show each periodic task with its last run and its next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from dream.cli.command import AsJson, Command, load_quietly, opened

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["register"]

#: Name, last run, its outcome, the next run.
Row = tuple[str, str, str, str]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=Command)(schedule)


def schedule(
    app: Annotated[
        str | None,
        typer.Option("--app", "-A", metavar="APP", help="A Celery-compatible app; its beat_schedule is shown too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the timetable: each entry's last run and its next."""
    from dream.cli.showing import show_rows

    settings = load_quietly()
    local_now = datetime.now(ZoneInfo(settings.timezone))
    with opened(settings) as producer, producer.database.read() as session:
        rows = list(_timetable(session, local_now))
        if app is not None:
            rows.extend(_of_app(session, app, local_now))
    if as_json:
        names = ("entry", "last_run_for", "outcome", "next")
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return
    show_rows(("entry", "last run for", "outcome", "next"), rows)


def _timetable(session: Session, local_now: datetime) -> Iterator[Row]:
    from dream.runs.figures import timetable

    for entry in timetable(session, local_now):
        outcome = f"{entry.outcome}, result {entry.result}" if entry.result is not None else entry.outcome or "-"
        yield entry.name, entry.last_for or "never", outcome, _minutes(entry.next_at) if entry.next_at else "-"


def _of_app(session: Session, name: str, local_now: datetime) -> Iterator[Row]:
    """The entries of an app. Their outcomes are in results, not in rows."""
    from dream.compat.finding import finalize, find_app
    from dream.compat.periodic import periodic_tasks
    from dream.db import periodic

    app = find_app(name)
    finalize(app)
    found = periodic_tasks(app)
    counted_from = periodic.ran_at(session, [task.name for task in found])
    for task in found:
        last = counted_from.get(task.name)
        due = task.schedule.next_after((last or local_now).astimezone(UTC))
        zone = local_now.tzinfo
        yield task.name, _minutes(last.astimezone(zone)) if last else "never", "-", _minutes(due.astimezone(zone))


def _minutes(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes")
