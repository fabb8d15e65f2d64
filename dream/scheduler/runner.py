"""The scheduler process: APScheduler over periodic tasks, the sweep and the removal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.exc import SQLAlchemyError

from dream.db.faults import explain
from dream.errors import DreamError
from dream.log import get_logger
from dream.observe import exposition, sentry, tracing
from dream.observe.metrics import JOB_FAILURES, JOB_SECONDS, JOB_SUCCESS
from dream.producer import Producer
from dream.runs.connections import Connections
from dream.runs.timetable import NIGHTLY_AT, TIMETABLE
from dream.scheduler.expiry import Expiry
from dream.scheduler.gauges import Gauges
from dream.scheduler.periodic import Entry, OwnEntry, Periodic
from dream.scheduler.removal import Orphans, Retention
from dream.scheduler.sweep import Sweep
from dream.scheduler.usage import UsageLook
from dream.work.notify import Pulse
from dream.work.presence import Presence, refuse_wrong_redis
from dream.work.process import StopSignal, say_ready, say_stopping, show_life

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Runner", "run"]

log = get_logger(__name__)

_SHOW_LIFE_EVERY_S = 1.0
_LOOK_EVERY_S = 0.1
#: A statement or a broker may take its own time-out, and several may follow each other, before a loop counts as stuck.
_STUCK_AFTER_S = 180.0
#: Seconds after a failed look: an app's entries may be due each second, the timetable's are not.
_AFTER_A_FAILURE_S, _TIMETABLE_AFTER_A_FAILURE_S = 1.0, 5.0


class Runner:
    """The root of a scheduler process: its connections, and the jobs over them.

    Parameters:
      settings: time zone, gaps, where the servers are.
      entries: periodic tasks beside those of the timetable.
    """

    def __init__(self, settings: Settings, entries: Sequence[Entry] = ()) -> None:
        tracing.set_up(settings, "dream-scheduler")
        self._zone = ZoneInfo(settings.timezone)
        self._connections = Connections(settings)
        self._producer = Producer(settings, self._connections)
        #: The loops that a watchdog looks at. An app's own schedule is none: it may hang and hold up nothing else.
        self.pulse = Pulse(_STUCK_AFTER_S)
        #: Whether the timetable has been looked at, and the error of its last look.
        self.is_ready, self._trouble = False, ""
        self._stopping = threading.Event()
        self._sweep = Sweep(settings, self._connections, self.pulse.moved)
        self._orphans = Orphans(settings, self._connections, self._stopping)
        self._expiry = Expiry(settings, self._connections)
        self._retention = Retention(settings, self._connections.database, self._stopping)
        self._gauges = Gauges(settings, self._connections) if settings.metrics_port else None
        self._usage = UsageLook(settings, self._connections)
        self._sweep_every_s = settings.resend_after_s / 4
        own = [OwnEntry(daily, self._producer, self._zone) for daily in TIMETABLE]
        # Apart: a caller's schedule or `apply_async` that hangs must not hold up the timetable.
        loops = [partial(self._keep_timetable, Periodic(self._connections.database, own=own))]
        if entries:
            loops.append(partial(self._keep_sending, Periodic(self._connections.database, entries)))
        # In threads of their own: APScheduler waits for its jobs with the lock that a job needs to add the next look.
        self._threads = [threading.Thread(target=each, name="periodic", daemon=True) for each in loops]
        # A misfire runs once, however late it is.
        self._scheduler = BackgroundScheduler(
            timezone=self._zone, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    def start(self) -> None:
        """Run the misfires since the last scheduler, then each job at its time."""
        add, local_now = self._scheduler.add_job, datetime.now(self._zone)
        nightly = CronTrigger(hour=NIGHTLY_AT.hour, minute=NIGHTLY_AT.minute, timezone=self._zone)
        # At each start, too: it does no harm at any hour, and the last night's may have been missed.
        add(_guarded(self._orphans.remove, "leftovers"), nightly, id="leftovers", next_run_time=local_now)
        pruning = IntervalTrigger(seconds=self._retention.every_s, timezone=self._zone)
        add(_guarded(self._retention.prune, "prune"), pruning, id="prune", next_run_time=local_now)
        expiring = IntervalTrigger(seconds=self._expiry.every_s, timezone=self._zone)
        add(_guarded(self._expiry.sweep, "expiry"), expiring, id="expiry", next_run_time=local_now)
        for name, job in (("resend", self._sweep.resend), ("announce", self._sweep.announce)):
            every = IntervalTrigger(seconds=self._sweep_every_s, timezone=self._zone)
            self.pulse.moved(name)
            add(self._watched(_guarded(job, name), name), every, id=name, next_run_time=local_now)
        if self._gauges is not None:
            looking = IntervalTrigger(seconds=self._gauges.every_s, timezone=self._zone)
            add(_guarded(self._gauges.look, "gauges"), looking, id="gauges", next_run_time=local_now)
        measuring = IntervalTrigger(seconds=self._usage.every_s, timezone=self._zone)
        add(_guarded(self._usage.look, "usage"), measuring, id="usage", next_run_time=local_now)
        self.pulse.moved("timetable")
        self._scheduler.start()
        for thread in self._threads:
            thread.start()

    @property
    def doing(self) -> str:
        """A line for the service manager."""
        return f"waits: {self._trouble}" if self._trouble else "the timetable runs"

    def _watched(self, job: Callable[[], None], name: str) -> Callable[[], None]:
        """A job whose start and next start are seen."""

        def watched() -> None:
            self.pulse.moved(name)
            try:
                job()
            finally:
                self.pulse.moved(name, self._sweep_every_s)

        return watched

    def _keep_timetable(self, periodic: Periodic) -> None:
        pause_s, trouble = 0.0, _Trouble("timetable")
        while not self._stopping.wait(pause_s):
            self.pulse.moved("timetable")
            next_s, self._trouble = _send_due(periodic, trouble)
            self.is_ready = self.is_ready or next_s is not None
            pause_s = _TIMETABLE_AFTER_A_FAILURE_S if next_s is None else next_s
            self.pulse.moved("timetable", pause_s)

    def _keep_sending(self, periodic: Periodic) -> None:
        pause_s, trouble = 0.0, _Trouble("periodic")
        while not self._stopping.wait(pause_s):
            next_s, _ = _send_due(periodic, trouble)
            pause_s = _AFTER_A_FAILURE_S if next_s is None else next_s

    def stop(self) -> None:
        """Finish the job that runs, start no other, and close all connections."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._scheduler.shutdown(wait=True)
        self._connections.close()
        tracing.stop()


def _send_due(periodic: Periodic, trouble: _Trouble) -> tuple[float | None, str]:
    """Send the periodic runs that are due; return the seconds until the next look, or None and the error."""
    try:
        next_s = periodic.send_due()
    except Exception as error:
        JOB_FAILURES.add(trouble.job)
        if isinstance(error, (DreamError, SQLAlchemyError)):
            return None, trouble.begin(error)
        log.exception("job_failed", job=trouble.job)  # the thread's edge: the next look must follow
        return None, type(error).__name__
    trouble.end()
    return next_s, ""


def _guarded(job: Callable[[], object], name: str) -> Callable[[], None]:
    """A job that goes on at its next time if a server is away or has no tables yet."""
    trouble = _Trouble(name)

    def guarded() -> None:
        try:
            with JOB_SECONDS.timed(name):
                job()
        except Exception as error:
            JOB_FAILURES.add(name)
            if not isinstance(error, (DreamError, SQLAlchemyError)):
                raise  # APScheduler logs it, with its traceback
            trouble.begin(error)
        else:
            trouble.end()
            JOB_SUCCESS.set(time.time(), name)

    return guarded


class _Trouble:
    """The failures of a job: one line when they begin or change, and one when they end."""

    def __init__(self, job: str) -> None:
        self.job = job
        self._said = ""
        JOB_FAILURES.begin(job)

    def begin(self, error: DreamError | SQLAlchemyError) -> str:
        """Note a failure; return the error's part of the line."""
        explained = explain(error) if isinstance(error, SQLAlchemyError) else error
        said = f"{type(explained).__name__}: {explained}".splitlines()[0]
        if said != self._said:
            log.warning("job_failed", job=self.job, error=said)
        self._said = said
        return said

    def end(self) -> None:
        """Note a success."""
        if self._said:
            log.info("job_works_again", job=self.job)
        self._said = ""


def run(settings: Settings, entries: Sequence[Entry] = ()) -> int:
    """Run the scheduler until SIGTERM or SIGINT; returns the exit code."""
    sentry.set_up(settings)
    refuse_wrong_redis(settings)
    stop = StopSignal()
    exposition.start(settings, "scheduler")
    runner = Runner(settings, entries)
    runner.start()
    with Presence(settings, "scheduler"):
        is_ready = False
        while not stop.wait(_SHOW_LIFE_EVERY_S if is_ready else _LOOK_EVERY_S):
            if runner.is_ready and not is_ready:
                is_ready = True
                log.info("scheduler_ready", timezone=settings.timezone)
                say_ready(settings, doing=runner.doing)
            show_life(settings, runner.pulse, doing=runner.doing)
    log.info("scheduler_stopping")
    say_stopping()
    runner.stop()
    return 0
