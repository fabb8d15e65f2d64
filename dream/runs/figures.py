"""The figures of a running system, for `dream top`, the page of operators and the gauges of the queues.

    broker    messages by queue                     ─┐
    database  due, delayed, ended, failed, schedule ─┼─► `Sources`
    Redis     processes, their runs and metrics     ─┘

Each source is asked apart: one that is away takes nothing from the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from dream.db import backlog, dead_letters, periodic, tasks
from dream.log import redact
from dream.messages.registry import queue_of
from dream.messages.states import owners_line
from dream.runs.queues import depths, due
from dream.runs.timetable import TIMETABLE
from dream.runs.usage import last_usage
from dream.work.running import answers, running
from dream.work.server_words import sentence_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from dream.db import Database
    from dream.db.backlog import Delayed
    from dream.messages.states import TaskState
    from dream.runs.queues import Due
    from dream.settings import Settings
    from dream.work.broker import AnyBroker, Depth
    from dream.work.running import Running

__all__ = ["Entry", "Failure", "History", "Processes", "Rows", "Run", "Series", "Sources", "task_name", "why_away"]

#: The newest failed tasks that are shown.
_FAILURES = 5
#: The time over which ended tasks are counted.
_THROUGHPUT_S = 60.0
#: Entries of an app's schedule that are shown.
_MOST_ENTRIES = 200


class Failure(NamedTuple):
    """A failed task: its short name, its end, and the reason for owners."""

    task: str
    at: datetime | None
    why: str


class Entry(NamedTuple):
    """An entry of the timetable, or of an app's schedule.

    Parameters:
      name: of the entry.
      last_for: the date or the time for which it ran last; None if it never ran.
      outcome: the state of that run's task; None if no row has it.
      result: the result of that run.
      next_at: its next run; None if only the app knows it.
    """

    name: str
    last_for: str | None
    outcome: str | None
    result: Any
    next_at: datetime | None


class Rows(NamedTuple):
    """The state of dream's own tasks, by their rows.

    Parameters:
      delayed: tasks that are due later, by queue without prefix: their number, and when the first and the last is due.
      ended: by state, tasks that ended in the last minute.
      failures: the newest failed tasks.
    """

    due: Due
    delayed: dict[str, Delayed]
    ended: Mapping[TaskState, int]
    failures: list[Failure]


class Run(NamedTuple):
    """A task in work: its worker, queue, name and id, its dream if it is dream's own, and how long it runs."""

    worker: str
    queue: str
    task: str
    task_id: str
    dream_id: int | None
    lasts_s: float


class Processes(NamedTuple):
    """The processes that answer.

    Parameters:
      stats: the answers of workers to `stats`, by name.
    """

    all: list[Running]
    stats: dict[str, Any]
    runs: list[Run]


@dataclass
class Series:
    """One series of a metric, summed over the workers; see `dream.observe.exposition.Series`."""

    labels: dict[str, str]
    value: float
    buckets: dict[float | None, float]


class Sources:
    """Asks the servers. Each method asks one, and may be called in a thread of its own.

    Parameters:
      broker, database: return the connections of the process; each is called when its source is asked.
    """

    def __init__(self, settings: Settings, broker: Callable[[], AnyBroker], database: Callable[[], Database]) -> None:
        self._settings, self._broker, self._database = settings, broker, database

    def messages(self) -> dict[str, Depth]:
        """Messages by queue, without prefix.

        Raises:
          BrokerUnavailable
        """
        return depths(self._settings, self._broker())

    def rows(self) -> Rows:
        """Dream's own tasks.

        Raises:
          SQLAlchemyError
        """
        database = self._database()
        found = due(database)
        with database.read() as session:
            return Rows(
                found,
                _by_queue(backlog.delayed(session)),
                backlog.ended(session, _THROUGHPUT_S),
                [
                    Failure(task_name(row.name), row.finished_at, owners_line(row.error))
                    for row in dead_letters.list_dead(session, limit=_FAILURES)
                ],
            )

    def schedule(self) -> list[Entry]:
        """The timetable, and the entries of apps.

        Raises:
          SQLAlchemyError
        """
        local_now = datetime.now(ZoneInfo(self._settings.timezone))
        with self._database().read() as session:
            return [*timetable(session, local_now), *_of_apps(session)]

    def processes(self) -> Processes:
        """Processes and their runs.

        Raises:
          RedisError, ValueError
        """
        stats, active = answers(self._settings, "stats"), answers(self._settings, "active")
        now = time.time()
        runs = [_run(worker, run, now) for worker, found in sorted(active.items()) for run in found]
        return Processes(running(self._settings, stats), stats, runs)

    def metrics(self, stats: Mapping[str, Any]) -> dict[str, list[Series]]:
        """Metrics of the workers by name, summed; without those of workers that have metrics off.

        Parameters:
          stats: the workers' answers to `stats`.

        Raises:
          RedisError, ValueError
        """
        asked = [name for name, reply in stats.items() if "figures" in reply.get("commands", ())]
        return _summed(answers(self._settings, "figures", asked).values()) if asked else {}

    def usage(self) -> dict[str, Any] | None:
        """The storage use; see `dream.runs.usage.last_usage`.

        Raises:
          RedisError
        """
        return last_usage(self._settings)


class History:
    """Ended tasks of the last hour by minute. It reads what is new, and remembers minutes that are over.

    Parameters:
      database: returns the connection.
    """

    #: Minutes that are kept.
    most = 60
    #: A task may be announced long after its end, so all minutes are read again from time to time, as far as the bound
    #: of a query goes; the newest ones each time.
    _whole_every_s, _again_s = 60.0, 150.0

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database
        self._minutes: dict[int, dict[TaskState, int]] = {}
        self._known_from = 0
        self._looked_at = self._whole_at = float("-inf")

    def look(self) -> list[tuple[int, dict[TaskState, int]]]:
        """The known minutes in order, as pairs (minutes since the epoch, tasks by state); the last is not over.

        Raises:
          SQLAlchemyError
        """
        began = time.monotonic()
        within_s = began - self._looked_at + self._again_s
        if began - self._whole_at >= self._whole_every_s:
            within_s, self._whole_at = self.most * 60.0, began
        with self._database().read() as session:
            now, counts, partial = backlog.ended_by_minute(session, within_s)
        first = now - self.most + 1
        if partial is not None and partial not in self._minutes:
            self._known_from = max(self._known_from, partial + 1)
        for minute, by_state in counts.items():
            known = self._minutes.setdefault(minute, {})
            for state, count in by_state.items():
                # Rows may have been removed meanwhile, or not all were read.
                known[state] = max(known.get(state, 0), count)
        self._minutes = {each: self._minutes.get(each, {}) for each in range(max(first, self._known_from), now + 1)}
        self._looked_at = began
        return sorted(self._minutes.items())


def timetable(session: Session, local_now: datetime) -> Iterable[Entry]:
    """Dream's own daily tasks."""
    for entry in TIMETABLE:
        run = tasks.newest_of(session, f"{entry.name}:")
        last = run.id.rpartition(":")[2] if run else None
        outcome, result = (str(run.state), run.result) if run else (None, None)
        yield Entry(entry.name, last, outcome, result, entry.next_after(local_now))


def _of_apps(session: Session) -> Iterable[Entry]:
    for name, ran_at in periodic.newest(session, _MOST_ENTRIES):
        yield Entry(name, ran_at.isoformat(), None, None, None)


def task_name(name: str) -> str:
    """The last part of a task's name."""
    return name.rpartition(".")[2]


def why_away(error: Exception) -> str:
    """The reason why a source is away, in one sentence with the server's own words and without passwords."""
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db.faults import explain

    return redact(sentence_of(explain(error) if isinstance(error, SQLAlchemyError) else error))


def _by_queue(found: Iterable[Delayed]) -> dict[str, Delayed]:
    by_queue: dict[str, Delayed] = {}
    for each in found:
        queue = each.queue or queue_of(each.name)
        before = by_queue.get(queue, each._replace(tasks=0))
        by_queue[queue] = before._replace(
            tasks=before.tasks + each.tasks,
            first_at=min(before.first_at, each.first_at),
            last_at=max(before.last_at, each.last_at),
        )
    return by_queue


def _run(worker: str, run: Mapping[str, Any], now: float) -> Run:
    queue = run.get("delivery_info", {}).get("routing_key", "")
    args = run.get("args")
    first = args[0] if isinstance(args, list) and args else None
    dream_id = first if run["name"].startswith("dream.") and isinstance(first, int) else None
    return Run(worker, queue, task_name(run["name"]), run["id"], dream_id, max(0.0, now - run["time_start"]))


def _summed(replies: Iterable[Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, list[Series]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], Series]] = {}
    for reply in replies:
        for name, several in reply.items():
            for each in several:
                labels = each["labels"]
                key = tuple(sorted(labels.items()))
                known = found.setdefault(name, {}).setdefault(key, Series(labels, 0.0, {}))
                known.value += each["value"]
                for bound, count in each["buckets"]:
                    known.buckets[bound] = known.buckets.get(bound, 0.0) + count
    return {name: list(series.values()) for name, series in found.items()}
