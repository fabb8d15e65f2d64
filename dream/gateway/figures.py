"""The figures of `/api/ops` as JSON. Each server is asked by one thread at a time, however many operators look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import TypedDict

from dream.db.backlog import MOST_COUNTED
from dream.errors import DreamError
from dream.messages.registry import QUEUES
from dream.messages.states import TaskState
from dream.runs.figures import History, Sources, why_away
from dream.version import __version__
from dream.work import aside

if TYPE_CHECKING:
    from dream.runs.connections import Connections
    from dream.runs.figures import Entry, Processes, Rows, Run, Series
    from dream.settings import Settings
    from dream.work.broker import Depth

__all__ = ["Figures", "FiguresAnswer"]

#: Answers are this old at most.
_KEPT_S = 1.0
_TIMEOUT_S = 8.0
#: States of ended tasks, as the history has them.
_ENDS = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.REVOKED)


class QueueFigures(TypedDict):
    """A queue. `waiting` and `delayed` are messages by the broker; `due_tasks`, `delayed_tasks` and the times are of
    dream's own tasks by their rows. Times are in seconds since the epoch.
    """

    name: str
    waiting: int | None
    delayed: int | None
    running: int | None
    due_tasks: int | None
    oldest_age_s: float | None
    delayed_tasks: int | None
    first_due_at: float | None
    last_due_at: float | None


class TaskFigures(TypedDict):
    """Rows of tasks in a run and of failed ones, unfinished pictures, and tasks that ended in the last minute."""

    running: int
    failed: int
    pictures: int
    last_minute: dict[str, int]


class HistoryFigures(TypedDict):
    """Ended tasks: each minute is its beginning in seconds since the epoch, and the number for each of `states`."""

    states: list[str]
    minutes: list[list[int]]


class ProcessFigures(TypedDict):
    """A service; the last four are of workers."""

    kind: str
    name: str
    version: str | None
    threads: int | None
    uptime_s: float | None
    runs: int | None
    has_metrics: bool | None


class RunFigures(TypedDict):
    """A task in work."""

    worker: str
    queue: str
    task: str
    task_id: str
    dream_id: int | None
    lasts_s: float


class SeriesFigures(TypedDict):
    """One series of a metric: `value` is a counter's, or the sum of a histogram's durations in seconds.

    A bucket is its upper bound, or null, and the number of durations up to it.
    """

    labels: dict[str, str]
    value: float
    buckets: list[tuple[float | None, float]]


class EntryFigures(TypedDict):
    """An entry of the timetable or of an app's schedule; only the app knows the next run of its entries."""

    name: str
    last_for: str | None
    outcome: str | None
    result: Any
    next_at: float | None


class FiguresAnswer(TypedDict):
    """The figures of the running system. Those of a source that is `away` are null."""

    at: float
    version: str
    #: Counts of rows end at this number.
    most_counted: int
    #: By source (`broker`, `database`, `redis`) the reason.
    away: dict[str, str]
    queues: list[QueueFigures]
    tasks: TaskFigures | None
    history: HistoryFigures | None
    processes: list[ProcessFigures] | None
    runs: list[RunFigures] | None
    metrics: dict[str, list[SeriesFigures]] | None
    schedule: list[EntryFigures] | None
    storage: dict[str, Any] | None


class Figures:
    """Looks at the running system when somebody asks.

    Parameters:
      connections: of the process.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        sources = Sources(settings, lambda: connections.broker, lambda: connections.database)
        history = History(lambda: connections.database)

        def rows() -> dict[str, Any]:
            found = sources.rows()
            return {"rows": found, "history": history.look(), "schedule": sources.schedule()}

        def processes() -> dict[str, Any]:
            found = sources.processes()
            return {"processes": found, "metrics": sources.metrics(found.stats), "usage": sources.usage()}

        self._asks: dict[str, Callable[[], dict[str, Any]]] = {
            "broker": lambda: {"depths": sources.messages()},
            "database": rows,
            "redis": processes,
        }
        #: A call that hangs is not made again beside itself.
        self._calls: dict[str, Future[dict[str, Any]]] = {}
        self._found: asyncio.Task[FiguresAnswer] | None = None
        self._found_at = 0.0

    async def look(self) -> FiguresAnswer:
        """The figures, at most a second old. A source that is away is in `away` with its reason, and its figures are
        null.
        """
        found = self._found
        if found is None or (found.done() and time.monotonic() - self._found_at > _KEPT_S):
            found = self._found = asyncio.create_task(self._look())
        # A client that leaves cancels its own wait, not the look for others.
        return await asyncio.shield(found)

    async def _look(self) -> FiguresAnswer:
        away: dict[str, str] = {}
        parts = await asyncio.gather(*(self._ask(source, away) for source in self._asks))
        self._found_at = time.monotonic()
        return _as_json({name: value for part in parts for name, value in part.items()}, away)

    async def _ask(self, source: str, away: dict[str, str]) -> dict[str, Any]:
        call = self._calls.get(source)
        if call is None or call.done():
            call = self._calls[source] = aside.run(self._asks[source])
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await asyncio.shield(asyncio.wrap_future(call))
        except TimeoutError:
            away[source] = "no answer in time"
        except (SQLAlchemyError, DreamError, RedisError, OSError, ValueError) as error:
            away[source] = why_away(error)
        return {}


def _as_json(found: Mapping[str, Any], away: dict[str, str]) -> FiguresAnswer:
    rows: Rows | None = found.get("rows")
    processes: Processes | None = found.get("processes")
    history, entries, metrics = (found.get(name) for name in ("history", "schedule", "metrics"))
    return FiguresAnswer(
        at=round(time.time(), 3),
        version=__version__,
        most_counted=MOST_COUNTED,
        away=away,
        queues=[_queue(queue, found.get("depths"), rows, processes) for queue in QUEUES],
        tasks=None if rows is None else _tasks(rows),
        history=None if history is None else _history(history),
        processes=None if processes is None else _processes(processes),
        runs=None if processes is None else [_run(run) for run in processes.runs],
        metrics=None if metrics is None else {name: list(map(_series, each)) for name, each in metrics.items()},
        schedule=None if entries is None else list(map(_entry, entries)),
        storage=found.get("usage"),
    )


def _queue(
    name: str, depths: Mapping[str, Depth] | None, rows: Rows | None, processes: Processes | None
) -> QueueFigures:
    depth = depths[name] if depths is not None else None
    delayed = rows.delayed.get(name) if rows is not None else None
    return QueueFigures(
        name=name,
        waiting=depth.waiting if depth else None,
        delayed=depth.delayed if depth else None,
        running=None if processes is None else sum(run.queue == name for run in processes.runs),
        due_tasks=None if rows is None else rows.due.waiting[name],
        oldest_age_s=None if rows is None else round(rows.due.oldest_age_s[name], 1),
        delayed_tasks=None if rows is None else delayed.tasks if delayed else 0,
        first_due_at=_seconds(delayed.first_at) if delayed else None,
        last_due_at=_seconds(delayed.last_at) if delayed else None,
    )


def _tasks(rows: Rows) -> TaskFigures:
    last_minute = {str(state): rows.ended.get(state, 0) for state in _ENDS}
    running, failed, pictures = rows.due.counts
    return TaskFigures(running=running, failed=failed, pictures=pictures, last_minute=last_minute)


def _history(minutes: Sequence[tuple[int, Mapping[TaskState, int]]]) -> HistoryFigures:
    shown = [[60 * minute, *(by_state.get(state, 0) for state in _ENDS)] for minute, by_state in minutes]
    return HistoryFigures(states=[str(state) for state in _ENDS], minutes=shown)


def _processes(found: Processes) -> list[ProcessFigures]:
    shown = []
    for each in found.all:
        stats = found.stats.get(each.name, {}) if each.kind == "worker" else {}
        shown.append(
            ProcessFigures(
                kind=each.kind,
                name=each.name,
                version=each.version,
                threads=stats.get("pool", {}).get("max-concurrency"),
                uptime_s=stats.get("uptime"),
                runs=sum(stats["total"].values()) if "total" in stats else None,
                has_metrics="figures" in stats.get("commands", ()) if stats else None,
            )
        )
    return shown


def _run(run: Run) -> RunFigures:
    worker, queue, task, task_id, dream_id, lasts_s = run
    return RunFigures(
        worker=worker, queue=queue, task=task, task_id=task_id, dream_id=dream_id, lasts_s=round(lasts_s, 1)
    )


def _series(series: Series) -> SeriesFigures:
    buckets = sorted(series.buckets.items(), key=lambda each: (each[0] is None, each[0] or 0.0))
    return SeriesFigures(labels=series.labels, value=round(series.value, 6), buckets=buckets)


def _entry(entry: Entry) -> EntryFigures:
    name, last_for, outcome, result, next_at = entry
    return EntryFigures(name=name, last_for=last_for, outcome=outcome, result=result, next_at=_seconds(next_at))


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None
