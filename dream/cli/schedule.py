"""`dream schedule`: what the timetable has run, and what comes next."""

from __future__ import annotations

import typer

from dream.cli.access import load_quietly, opened

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(schedule)


def schedule() -> None:
    """Show the timetable: each entry, its last run and outcome, its next."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from dream.cli.showing import show_rows
    from dream.db import tasks
    from dream.scheduler.timetable import TIMETABLE

    settings = load_quietly()
    local_now = datetime.now(ZoneInfo(settings.timezone))
    with opened(settings) as producer, producer.database.read() as session:
        last = {entry.name: tasks.newest_of(session, f"{entry.name}:") for entry in TIMETABLE}
    rows = []
    for entry in TIMETABLE:
        run = last[entry.name]
        outcome = f"{run.state}, result {run.result}" if run and run.result is not None else run.state if run else "-"
        date = run.id.rpartition(":")[2] if run else "never"
        rows.append((entry.name, date, outcome, entry.next_after(local_now).isoformat(" ", "minutes")))
    show_rows(("entry", "last run for", "outcome", "next"), rows)
