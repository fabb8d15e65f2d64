"""The catalogue of metrics: each is defined here once, and recorded where its event happens.

    RUNS.add(task, "succeeded")     STORE_SECONDS.observe(0.02, "PutObject")     with STEP_SECONDS.timed("fetch"): …

Until `dream.observe.exposition.start` switches metrics on, recording does nothing, and Prometheus's client is not
imported. Labels never contain an id, a user, a URL or a key: their values are few.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from dream.version import __version__

__all__ = ["CATALOGUE", "OUTCOMES", "PARTS", "Counter", "Gauge", "Histogram", "Metric", "switch_on"]

#: The label `part` is not called `service`, and none is `job`: Prometheus gives these names to labels of its own.
PARTS = ("worker", "scheduler", "gateway", "bridge")
#: The ends of a run. After `retried` and `requeued` another run follows; `rejected`: the caller's pictures are refused;
#: `not_run`: the task was not due or not free.
OUTCOMES = ("succeeded", "rejected", "failed", "retried", "requeued", "revoked", "lease_lost", "not_run")

#: Seconds of a call of a server.
_CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Seconds of work on pictures, and of waits that are short on a healthy system.
_WORK_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)


@dataclass(eq=False)
class Metric:
    """One metric.

    Parameters:
      name: by Prometheus's conventions, in base units.
      about: the text of `# HELP`, and of the documentation.
      labels: their names, in the order of the values that each call gives.
      parts: the kinds of processes that export it.
      known: values of labels whose series exist from the start, at zero, so that the first increase is seen.
    """

    kind: ClassVar[str]
    name: str
    about: str
    labels: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS
    known: Iterable[tuple[str, ...]] = ()
    _live: Any = field(default=None, init=False, repr=False)
    #: By values of labels: the client's own look-up takes longer than a record.
    _series: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False)

    def switch_on(self, registry: Any) -> None:
        """Record from now on."""
        import prometheus_client

        make = getattr(prometheus_client, self.kind.title())
        self._live = make(self.name, self.about, self.labels, registry=registry, **self._options())
        for values in self.known:
            self._at(values)

    def switch_off(self) -> None:
        """Record nothing from now on."""
        self._live = None
        self._series.clear()

    def _options(self) -> Mapping[str, Any]:
        return {}

    def begin(self, *labels: str) -> None:
        """Let the series exist, at zero."""
        if self._live is not None:
            self._at(labels)

    def _at(self, labels: tuple[str, ...]) -> Any:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = self._live.labels(*labels) if labels else self._live
        return series

    @property
    def is_on(self) -> bool:
        """Whether this process records it."""
        return self._live is not None


@dataclass(eq=False)
class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count."""
        if self._live is not None:
            self._at(labels).inc(amount)


@dataclass(eq=False)
class Gauge(Metric):
    """A number that grows and falls.

    Parameters:
      over: how the values of several processes become one: `sum`, `max` or `mostrecent`. Dead processes do not count.
    """

    kind = "gauge"
    over: str = "sum"

    def _options(self) -> Mapping[str, Any]:
        return {"multiprocess_mode": f"live{self.over}"}

    def set(self, value: float, *labels: str) -> None:
        """Set the value of this process."""
        if self._live is not None:
            self._at(labels).set(value)

    def add(self, amount: float, *labels: str) -> None:
        """Add to the value of this process."""
        if self._live is not None:
            self._at(labels).inc(amount)


@dataclass(eq=False)
class Histogram(Metric):
    """Durations, in seconds.

    Parameters:
      buckets: upper bounds.
    """

    kind = "histogram"
    buckets: tuple[float, ...] = _WORK_S

    def _options(self) -> Mapping[str, Any]:
        return {"buckets": self.buckets}

    def observe(self, seconds: float, *labels: str) -> None:
        """Record one duration."""
        if self._live is not None:
            self._at(labels).observe(seconds)

    @contextmanager
    def timed(self, *labels: str) -> Iterator[None]:
        """Record the duration of the block, even if it raises."""
        if self._live is None:
            yield
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - began, *labels)


_WORKER, _SCHEDULER, _GATEWAY = ("worker",), ("scheduler",), ("gateway",)

# --- every service

BUILD_INFO = Gauge("dream_build_info", "1 for each version of dream that runs.", ("part", "version"), over="max")
PROCESSES = Gauge("dream_processes", "Processes that run, without the children of pools.", ("part",))
START_TIME = Gauge(
    "dream_start_time_seconds", "Start of the newest process, in seconds since the epoch.", ("part",), over="max"
)
STEP_SECONDS = Histogram(
    "dream_step_seconds",
    "Duration of each step of a flow; `process` is the time that a child of the pool works on a picture.",
    ("step",),
)
DATABASE_SECONDS = Histogram(
    "dream_database_seconds",
    "Duration of SQL statements, by their first word, and of commits.",
    ("statement",),
    buckets=_CALL_S,
)
DATABASE_ERRORS = Counter(
    "dream_database_errors_total",
    "SQL statements that failed: the connection was lost (`disconnected`), or the database refused them (`refused`).",
    ("reason",),
    known=[("disconnected",), ("refused",)],
)
STORE_SECONDS = Histogram(
    "dream_store_seconds",
    "Duration of calls of the object store; of pictures that the gateway passes on, until the store begins its answer.",
    ("operation",),
    buckets=_CALL_S,
)
STORE_ERRORS = Counter(
    "dream_store_errors_total",
    "Calls of the object store that failed: it did not answer (`unavailable`), answered with an error of its own "
    "(`server`) or refused the call (`refused`). A missing object or range is no error.",
    ("reason",),
    known=[("unavailable",), ("server",), ("refused",)],
)
REDIS_SECONDS = Histogram("dream_redis_seconds", "Duration of dream's scripts in Redis.", ("script",), buckets=_CALL_S)
REDIS_ERRORS = Counter("dream_redis_errors_total", "Scripts in Redis that failed.")
EVENTS_PUBLISHED = Counter(
    "dream_events_published_total",
    "Events for pages: Redis took them (`published`) or did not (`lost`).",
    ("outcome",),
    known=[("published",), ("lost",)],
)

# --- the worker

WAIT_SECONDS = Histogram(
    "dream_task_wait_seconds", "Time from the moment at which a task is due to its run.", ("queue", "task"), _WORKER
)
RUN_SECONDS = Histogram("dream_task_run_seconds", "Duration of runs.", ("task",), _WORKER)
RUNS = Counter(
    "dream_task_runs_total",
    "Ends of runs: `succeeded`; `rejected`, because all pictures are bad; `failed` for good; `retried` or `requeued`: "
    "another run follows; `revoked`; without the lease (`lease_lost`); or not begun (`not_run`).",
    ("task", "outcome"),
    _WORKER,
)
REDELIVERIES = Counter(
    "dream_task_redeliveries_total",
    "Messages delivered again, because the worker before died or requeued them.",
    ("task",),
    _WORKER,
)
IN_WORK = Gauge("dream_tasks_in_work", "Tasks that threads run now.", (), _WORKER)
THREADS = Gauge("dream_worker_threads", "Threads that run tasks.", (), _WORKER)
POOL_CHILDREN = Gauge("dream_pool_processes", "Processes that work on pictures.", (), _WORKER)
POOL_JOBS = Gauge("dream_pool_jobs", "Pictures that the pool has: in work, or waiting for a process.", (), _WORKER)
POOL_KILLS = Counter(
    "dream_pool_kills_total",
    "Pictures whose process was ended: too slow (`time_limit`), dead (`crash`), or out of memory (`memory`).",
    ("reason",),
    _WORKER,
    known=[("time_limit",), ("crash",), ("memory",)],
)
PICTURES = Counter(
    "dream_pictures_total",
    "Pictures: `completed` in a format, `rejected` for good, or `failed` in a run that another may follow.",
    ("outcome", "format"),
    _WORKER,
    known=[("completed", "jpeg"), ("completed", "webp"), ("completed", "avif"), ("rejected", ""), ("failed", "")],
)
VARIANTS = Counter(
    "dream_variants_total",
    "Versions that visitors asked for: `made`; not kept, because they would save no bytes (`no_gain`); or not needed "
    "any more, because the picture was deleted or got another focal point (`gone`).",
    ("outcome",),
    _WORKER,
    known=[("made",), ("no_gain",), ("gone",)],
)
BYTES_IN = Counter("dream_picture_read_bytes_total", "Bytes of uploaded files that workers fetched.", (), _WORKER)
BYTES_OUT = Counter(
    "dream_picture_written_bytes_total", "Bytes of finished pictures and variants that workers stored.", (), _WORKER
)

# --- the gateway

REQUEST_SECONDS = Histogram(
    "dream_http_request_seconds",
    "Duration of HTTP requests, by route (`none`: no route has this path).",
    ("method", "route", "status"),
    _GATEWAY,
    buckets=_CALL_S,
)
CONNECTIONS = Gauge("dream_connections", "Open connections, WebSockets among them.", (), _GATEWAY)
MOST_CONNECTIONS = Gauge("dream_connections_limit", "Connections that the gateway takes.", (), _GATEWAY)
REFUSED_CONNECTIONS = Counter(
    "dream_connections_refused_total",
    "Connections, requests and sockets over a limit of connections: they were refused, or cut for a newer one.",
    (),
    _GATEWAY,
)
MEDIA_READS = Counter(
    "dream_media_reads_total",
    "Pictures that `DREAM_MEDIA_MODE=proxy` read, from its `memory` or from the `store`.",
    ("source",),
    _GATEWAY,
    (("memory",), ("store",)),
)
MEDIA_MEMORY = Gauge("dream_media_memory_bytes", "Memory of the pictures that gateways keep.", (), _GATEWAY)
SOCKETS = Gauge("dream_sockets", "Open WebSockets.", (), _GATEWAY)
SOCKETS_CLOSED = Counter(
    "dream_sockets_closed_total",
    "WebSockets that have ended, by close code; 4008 is a client that read too slowly or sent too much. Codes that "
    "dream does not know are `other`.",
    ("code",),
    _GATEWAY,
    known=[("1000",), ("1001",), ("1012",), ("1013",), ("4001",), ("4008",)],
)
EVENTS_SENT = Counter(
    "dream_socket_events_total", "Events that were sent to WebSockets and event streams.", (), _GATEWAY
)

# --- the scheduler

QUEUE_MESSAGES = Gauge(
    "dream_queue_messages",
    "Messages in the broker: `waiting` for a worker, or `delayed` to a later time.",
    ("queue", "state"),
    _SCHEDULER,
    over="mostrecent",
)
QUEUE_WAITING = Gauge(
    "dream_queue_waiting_tasks",
    "Tasks of dream's own, by their rows, that are due and have no run; at most 10,000 are counted.",
    ("queue",),
    _SCHEDULER,
    over="mostrecent",
)
QUEUE_OLDEST = Gauge(
    "dream_queue_oldest_age_seconds",
    "Time since the oldest of these tasks was due; 0 if none waits.",
    ("queue",),
    _SCHEDULER,
    over="mostrecent",
)
TASKS = Gauge(
    "dream_tasks",
    "Rows of tasks in a run, and of failed tasks that `dream dlq` lists; at most 10,000 are counted.",
    ("state",),
    _SCHEDULER,
    over="mostrecent",
)
PICTURES_UNFINISHED = Gauge(
    "dream_pictures_unfinished",
    "Pictures that wait or are in work; at most 10,000 are counted.",
    (),
    _SCHEDULER,
    over="mostrecent",
)
STORED_BYTES = Gauge(
    "dream_stored_bytes",
    "Bytes of all stored pictures, with their variants and originals, by their rows.",
    (),
    _SCHEDULER,
    over="mostrecent",
)
STORED_PICTURES = Gauge("dream_stored_pictures", "Stored pictures, by their rows.", (), _SCHEDULER, over="mostrecent")
STAGED_FILES = Gauge(
    "dream_staged_files",
    "Uploaded files that wait, or that a failed task keeps for a replay; at most 10,000 are counted.",
    (),
    _SCHEDULER,
    over="mostrecent",
)
JOB_SECONDS = Histogram("dream_job_seconds", "Duration of the scheduler's jobs.", ("name",), _SCHEDULER)
JOB_FAILURES = Counter("dream_job_failures_total", "Jobs of the scheduler that failed.", ("name",), _SCHEDULER)
JOB_SUCCESS = Gauge(
    "dream_job_last_success_timestamp_seconds",
    "Last success of each job of the scheduler, in seconds since the epoch.",
    ("name",),
    _SCHEDULER,
    over="max",
)
TIMETABLE_SUCCESS = Gauge(
    "dream_timetable_last_success_timestamp_seconds",
    "Last success of each daily task, by its rows, in seconds since the epoch.",
    ("entry",),
    _SCHEDULER,
    over="mostrecent",
)
RESENT = Counter(
    "dream_tasks_resent_total", "Tasks whose messages the broker had lost, and which the sweep sent again.", (),
    _SCHEDULER,
)  # fmt: skip
ORPHANS = Counter(
    "dream_orphans_removed_total",
    "Orphans that were removed: staged bytes of ended pictures (`staged`), of no row (`orphans`) and of direct "
    "uploads that nobody completed (`direct`). `objects` counts failed and deleted pictures, also those that had left "
    "no object; `remade` counts pictures whose former objects were removed.",
    ("kind",),
    _SCHEDULER,
)
PRUNED = Counter("dream_rows_pruned_total", "Rows past their time that were removed.", ("kind",), _SCHEDULER)
PERIODIC = Counter(
    "dream_periodic_tasks_total",
    "Runs of an app's schedule: `sent`, `deferred` while the broker is away, or `refused` for good.",
    ("outcome",),
    _SCHEDULER,
    known=[("sent",), ("deferred",), ("refused",)],
)

#: All metrics, by name.
CATALOGUE: Mapping[str, Metric] = MappingProxyType(
    {each.name: each for each in list(globals().values()) if isinstance(each, Metric)}
)


def switch_on(part: str, registry: Any) -> None:
    """Record the metrics of this service. A forked child of this process records nothing."""
    mine = [each for each in CATALOGUE.values() if part in each.parts]
    for metric in mine:
        metric.switch_on(registry)
    for metric in mine:
        os.register_at_fork(after_in_child=metric.switch_off)
    BUILD_INFO.set(1, part, __version__)
    PROCESSES.set(1, part)
    START_TIME.set(time.time(), part)
