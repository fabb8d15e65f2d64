"""`dream top`: a live view in the terminal of queues, tasks, processes and failures (`dream.runs.figures`).

A source that is away is a line of its own, and the others are still shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dream.cli.command import Command, load_quietly
from dream.work.process import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from dream.runs.figures import Failure, Processes, Rows, Sources
    from dream.settings import Settings
    from dream.work.broker import Depth

__all__ = ["register"]

T = TypeVar("T")

#: Runs and processes that fit on a screen; further ones are counted.
_MOST_LINES = 12


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=Command)(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one view and end.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.5, max=60, metavar="S", help="Seconds between two views.")
    ] = 2.0,
) -> None:
    """Show queues, tasks, processes and failures, live until Ctrl-C. Print them once if the output is no terminal."""
    from rich.console import Console
    from rich.live import Live

    settings = load_quietly()
    console = Console(highlight=False)
    try:
        with _opened(settings) as sources:
            if once or not console.is_terminal:
                console.print(_screen(_look(sources)))
                return
            with Live(_screen(_look(sources)), console=console, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(every_s)
                    live.update(_screen(_look(sources)), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


# --- looking


@dataclass
class Seen:
    """The state at one moment. The figures of a source that is away are None.

    Parameters:
      away: by source, the reason.
    """

    at: datetime
    away: dict[str, str] = field(default_factory=dict)
    depths: dict[str, Depth] | None = None
    rows: Rows | None = None
    processes: Processes | None = None


@contextmanager
def _opened(settings: Settings) -> Iterator[Sources]:
    from dream.db import Database
    from dream.runs.figures import Sources
    from dream.work.broker import make_broker

    database = Database(settings)
    try:
        with closing(make_broker(settings)) as broker:
            yield Sources(settings, lambda: broker, lambda: database)
    finally:
        database.dispose()


def _look(sources: Sources) -> Seen:
    seen = Seen(datetime.now().astimezone())
    seen.depths = _tried(sources.messages, "broker", seen.away)
    seen.rows = _tried(sources.rows, "database", seen.away)
    seen.processes = _tried(sources.processes, "Redis", seen.away)
    return seen


def _tried(ask: Callable[[], T], source: str, away: dict[str, str]) -> T | None:
    """Ask one source; note why it is away."""
    from redis import RedisError
    from sqlalchemy.exc import SQLAlchemyError

    from dream.errors import DreamError
    from dream.runs.figures import why_away

    try:
        return ask()
    except (SQLAlchemyError, DreamError, RedisError, OSError, ValueError) as error:
        away[source] = why_away(error)
        return None


# --- showing


def _screen(seen: Seen) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from dream.version import __version__

    parts: list[RenderableType] = [Text(f"dream {__version__}   {seen.at:%Y-%m-%d %H:%M:%S}", style="bold")]
    parts += [Text(f"{source} is away: {why}", style="red") for source, why in seen.away.items()]
    parts += [Text(), _queues(seen), Text(), _tasks(seen)]
    parts += [Text(), _processes(seen), Text(), _runs(seen)]
    if seen.rows is not None and seen.rows.failures:
        parts += [Text(), _failures(seen.rows.failures)]
    return Group(*parts)


def _table(*headings: str, is_wide: bool = False) -> Table:
    """A table without lines. Numbers are to the right.

    Parameters:
      is_wide: the last column takes the rest of the width; only it is cut.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", expand=is_wide)
    for heading in headings:
        is_number = heading in ("waiting", "delayed", "due", "oldest", "lasts")
        table.add_column(
            heading,
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_wide and heading == headings[-1] else None,
        )
    return table


def _queues(seen: Seen) -> RenderableType:
    from dream.messages.registry import QUEUES

    table = _table("queue", "waiting", "delayed", "due", "oldest")
    for queue in QUEUES:
        depth = seen.depths[queue] if seen.depths is not None else None
        waiting, delayed = (str(depth.waiting), str(depth.delayed)) if depth is not None else ("?", "?")
        due, oldest = "?", "?"
        if seen.rows is not None:
            due, oldest = _many(seen.rows.due.waiting[queue]), _duration(seen.rows.due.oldest_age_s[queue])
        table.add_row(queue, waiting, delayed, due, oldest)
    return table


def _tasks(seen: Seen) -> RenderableType:
    from rich.text import Text

    from dream.messages.states import TaskState

    if seen.rows is None:
        return Text("tasks: ?")
    counts, ended = seen.rows.due.counts, seen.rows.ended
    succeeded, failed = ended.get(TaskState.SUCCEEDED, 0), ended.get(TaskState.FAILED, 0)
    text = Text(f"tasks: {_many(counts.running)} running, ")
    text.append(f"{_many(counts.failed)} failed", style="red" if counts.failed else "")
    text.append(f"; {_many(counts.pictures)} pictures unfinished")
    text.append(f"\nlast minute: {_many(succeeded)} tasks done, {failed} failed")
    return text


def _processes(seen: Seen) -> RenderableType:
    from rich.text import Text

    from dream.cli.showing import clean
    from dream.version import __version__

    if seen.processes is None:
        return Text("processes: ?")
    found = seen.processes.all
    missing = [kind for kind in ("worker", "scheduler", "gateway") if kind not in {each.kind for each in found}]
    table = _table("process", "version", "name", is_wide=True)
    for kind, name, version in found[:_MOST_LINES]:
        style = "" if version == __version__ else "yellow"
        table.add_row(kind, Text(version or "?", style=style), clean(name))
    for kind in missing:
        table.add_row(kind, "-", Text("none runs", style="yellow"))
    if len(found) > _MOST_LINES:
        table.add_row("…", "", f"and {len(found) - _MOST_LINES} more")
    return table


def _runs(seen: Seen) -> RenderableType:
    from rich.text import Text

    from dream.cli.showing import clean

    if seen.processes is None:
        return Text("runs: ?")
    runs = seen.processes.runs
    if not runs:
        return Text("nothing runs now", style="dim")
    table = _table("lasts", "runs now", "id", "in", is_wide=True)
    for run in runs[:_MOST_LINES]:
        table.add_row(_duration(run.lasts_s), clean(run.task), clean(run.task_id), clean(run.worker))
    if len(runs) > _MOST_LINES:
        table.add_row("…", f"and {len(runs) - _MOST_LINES} more", "", "")
    return table


def _failures(failures: Iterable[Failure]) -> RenderableType:
    from rich.text import Text

    from dream.cli.showing import clean

    table = _table("failed at", "task", "why", is_wide=True)
    for name, at, why in failures:
        table.add_row(f"{at.astimezone():%m-%d %H:%M}" if at else "?", clean(name), Text(clean(why), style="red"))
    return table


def _many(count: int) -> str:
    """A count; the queries stop at a bound."""
    from dream.db.backlog import MOST_COUNTED

    return f"{count}+" if count >= MOST_COUNTED else str(count)


def _duration(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    for unit_s, unit, smaller_s, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s}{unit} {whole % unit_s // smaller_s}{smaller}"
    return f"{whole}s"
