"""`dream top`: a live view in the terminal of queues, tasks, processes and failures.

    broker    messages by queue           ─┐
    database  due, running, ended, failed ─┼─► Seen ─► a screen
    Redis     processes, their runs       ─┘

Each source is asked apart: one that is away is a line of its own, and the others are still shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import Command, load_quietly
from dream.work.process import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from dream.cli.running import Running
    from dream.db import Database
    from dream.messages.states import TaskState
    from dream.runs.queues import Due
    from dream.settings import Settings
    from dream.work.broker import AnyBroker, Depth

__all__ = ["register"]

#: The newest failed tasks that are shown.
_FAILURES = 5
#: Runs and processes that fit on a screen; further ones are counted.
_MOST_LINES = 12
#: The time over which ended tasks are counted.
_THROUGHPUT_S = 60.0


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
        with _Sources.opened(settings) as sources:
            if once or not console.is_terminal:
                console.print(_screen(sources.look()))
                return
            with Live(_screen(sources.look()), console=console, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(every_s)
                    live.update(_screen(sources.look()), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


# --- looking


@dataclass(frozen=True)
class Run:
    """A task in work: its worker, name and id, and for how long it runs."""

    worker: str
    task: str
    task_id: str
    lasts_s: float


@dataclass
class Seen:
    """The state at one moment. Fields of a source that is away are None.

    Parameters:
      away: by source, the reason.
      ended: by state, tasks with a row that ended in the last minute.
      failures: the newest failed tasks: name, end, error.
    """

    at: datetime
    away: dict[str, str] = field(default_factory=dict)
    depths: dict[str, Depth] | None = None
    due: Due | None = None
    ended: Mapping[TaskState, int] | None = None
    failures: Sequence[tuple[str, datetime | None, str]] | None = None
    processes: Sequence[Running] | None = None
    runs: Sequence[Run] | None = None


class _Sources:
    def __init__(self, settings: Settings, broker: AnyBroker, database: Database) -> None:
        self._settings, self._broker, self._database = settings, broker, database

    @classmethod
    @contextmanager
    def opened(cls, settings: Settings) -> Iterator[_Sources]:
        from dream.db import Database
        from dream.work.broker import make_broker

        database = Database(settings)
        try:
            with closing(make_broker(settings)) as broker:
                yield cls(settings, broker, database)
        finally:
            database.dispose()

    def look(self) -> Seen:
        seen = Seen(datetime.now().astimezone())
        for source, ask in {
            "broker": self._ask_broker,
            "database": self._ask_database,
            "Redis": self._ask_redis,
        }.items():
            if (error := _tried(ask, seen)) is not None:
                seen.away[source] = error
        return seen

    def _ask_broker(self, seen: Seen) -> None:
        from dream.runs.queues import depths

        seen.depths = depths(self._settings, self._broker)

    def _ask_database(self, seen: Seen) -> None:
        from dream.db import backlog, dead_letters
        from dream.messages.states import owners_line
        from dream.runs.queues import due

        seen.due = due(self._database)
        with self._database.read() as session:
            seen.ended = backlog.ended(session, _THROUGHPUT_S)
            seen.failures = [
                (_short(row.name), row.finished_at, owners_line(row.error))
                for row in dead_letters.list_dead(session, limit=_FAILURES)
            ]

    def _ask_redis(self, seen: Seen) -> None:
        from dream.cli.running import answers, running

        stats, active = answers(self._settings, "stats"), answers(self._settings, "active")
        seen.processes = running(self._settings, stats)
        now = time.time()
        seen.runs = [
            Run(worker, _short(run["name"]), run["id"], max(0.0, now - run["time_start"]))
            for worker, found in sorted(active.items())
            for run in found
        ]


def _tried(ask: Callable[[Seen], None], seen: Seen) -> str | None:
    """Ask one source; return why it is away."""
    from redis import RedisError
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db.faults import explain
    from dream.errors import DreamError
    from dream.log import redact
    from dream.stack.server_words import sentence_of

    try:
        ask(seen)
    except SQLAlchemyError as error:
        return redact(sentence_of(explain(error)))
    except (DreamError, RedisError, OSError, ValueError) as error:
        return redact(sentence_of(error))
    return None


def _short(task: str) -> str:
    return task.rpartition(".")[2]


# --- showing


def _screen(seen: Seen) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from dream.version import __version__

    parts: list[RenderableType] = [Text(f"dream {__version__}   {seen.at:%Y-%m-%d %H:%M:%S}", style="bold")]
    parts += [Text(f"{source} is away: {why}", style="red") for source, why in seen.away.items()]
    parts += [Text(), _queues(seen), Text(), _tasks(seen)]
    parts += [Text(), _processes(seen), Text(), _runs(seen)]
    if seen.failures:
        parts += [Text(), _failures(seen)]
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
        if seen.due is not None:
            due, oldest = _many(seen.due.waiting[queue]), _duration(seen.due.oldest_age_s[queue])
        table.add_row(queue, waiting, delayed, due, oldest)
    return table


def _tasks(seen: Seen) -> RenderableType:
    from rich.text import Text

    from dream.messages.states import TaskState

    if seen.due is None or seen.ended is None:
        return Text("tasks: ?")
    counts = seen.due.counts
    succeeded, failed = seen.ended.get(TaskState.SUCCEEDED, 0), seen.ended.get(TaskState.FAILED, 0)
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
    missing = [
        kind for kind in ("worker", "scheduler", "gateway") if kind not in {each.kind for each in seen.processes}
    ]
    table = _table("process", "version", "name", is_wide=True)
    for kind, name, version in seen.processes[:_MOST_LINES]:
        style = "" if version == __version__ else "yellow"
        table.add_row(kind, Text(version or "?", style=style), clean(name))
    for kind in missing:
        table.add_row(kind, "-", Text("none runs", style="yellow"))
    if len(seen.processes) > _MOST_LINES:
        table.add_row("…", "", f"and {len(seen.processes) - _MOST_LINES} more")
    return table


def _runs(seen: Seen) -> RenderableType:
    from rich.text import Text

    from dream.cli.showing import clean

    if seen.runs is None:
        return Text("runs: ?")
    if not seen.runs:
        return Text("nothing runs now", style="dim")
    table = _table("lasts", "runs now", "id", "in", is_wide=True)
    for run in seen.runs[:_MOST_LINES]:
        table.add_row(_duration(run.lasts_s), clean(run.task), clean(run.task_id), clean(run.worker))
    if len(seen.runs) > _MOST_LINES:
        table.add_row("…", f"and {len(seen.runs) - _MOST_LINES} more", "", "")
    return table


def _failures(seen: Seen) -> RenderableType:
    from rich.text import Text

    from dream.cli.showing import clean

    table = _table("failed at", "task", "why", is_wide=True)
    for name, at, why in seen.failures or ():
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
