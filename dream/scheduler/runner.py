"""The scheduler process: APScheduler over the timetable, the sweep and the nightly removal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.exc import SQLAlchemyError

from dream.broker import make_broker
from dream.db import Database
from dream.db.faults import explain
from dream.errors import DreamError
from dream.log import get_logger
from dream.notifications import Publisher
from dream.presence import Presence, refuse_cluster
from dream.process import StopSignal, say_ready, show_life
from dream.producer import Producer
from dream.scheduler.leftovers import Leftovers
from dream.scheduler.periodic import Entry, Periodic
from dream.scheduler.retention import Retention
from dream.scheduler.sweep import Sweep
from dream.scheduler.timetable import NIGHTLY_AT, TIMETABLE, Daily
from dream.storage import Storage

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Runner", "run"]

log = get_logger(__name__)

_SHOW_LIFE_EVERY_S = 1.0
_AFTER_A_FAILURE_S = 1.0


class Runner:
    """The jobs of a scheduler process.

    Parameters:
      settings: time zone, gaps, where the servers are.
      entries: periodic tasks beside those of the timetable.
    """

    def __init__(self, settings: Settings, entries: Sequence[Entry] = ()) -> None:
        self._zone = ZoneInfo(settings.timezone)
        self._database = Database(settings)
        storage, self._broker, self._publisher = Storage(settings), make_broker(settings), Publisher(settings)
        self._producer = Producer(settings, database=self._database, storage=storage, broker=self._broker)
        self._sweep = Sweep(settings, self._database, self._broker, self._publisher)
        self._leftovers = Leftovers(settings, self._database, storage)
        self._retention = Retention(settings, self._database)
        self._sweep_every_s = settings.resend_after_s / 4
        self._periodic = Periodic(self._database, entries) if entries else None
        self._submitted: dict[str, date] = {}
        # Misfires run however late they are, and once.
        self._scheduler = BackgroundScheduler(
            timezone=self._zone, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    def start(self) -> None:
        """Run what was missed while no scheduler ran, then by the timetable."""
        add, local_now = self._scheduler.add_job, datetime.now(self._zone)
        for entry in TIMETABLE:
            at = CronTrigger(hour=entry.at.hour, minute=entry.at.minute, timezone=self._zone)
            add(_guarded(partial(self.submit_if_due, entry), entry.name), at, id=entry.name)
        nightly = CronTrigger(hour=NIGHTLY_AT.hour, minute=NIGHTLY_AT.minute, timezone=self._zone)
        # At each start, too: it does no harm at any hour, and the last night's may have been missed.
        add(_guarded(self._leftovers.remove, "leftovers"), nightly, id="leftovers", next_run_time=local_now)
        pruning = IntervalTrigger(seconds=self._retention.every_s, timezone=self._zone)
        add(_guarded(self._retention.prune, "prune"), pruning, id="prune", next_run_time=local_now)
        for name, job in (("resend", self._sweep.resend), ("announce", self._sweep.announce), ("missed", self._missed)):
            every = IntervalTrigger(seconds=self._sweep_every_s, timezone=self._zone)
            add(_guarded(job, name), every, id=name, next_run_time=local_now)
        self._scheduler.start()
        if self._periodic is not None:
            self._look_at_periodic(self._periodic, in_s=0)

    def _look_at_periodic(self, periodic: Periodic, in_s: float) -> None:
        """Send what is due then, and look again when more is."""

        def look() -> None:
            pause_s = _AFTER_A_FAILURE_S
            try:
                pause_s = periodic.send_due()
            finally:
                self._look_at_periodic(periodic, pause_s)

        at = datetime.now(self._zone) + timedelta(seconds=in_s)
        self._scheduler.add_job(_guarded(look, "periodic"), DateTrigger(at, self._zone))

    def stop(self) -> None:
        """Finish the job that runs, start no other, and close all connections."""
        self._retention.stop()
        self._scheduler.shutdown(wait=True)
        self._sweep.close()
        self._publisher.close()
        self._broker.close()
        self._database.dispose()

    def submit_if_due(self, entry: Daily) -> bool:
        """Submit the newest run that is due, unless somebody has; says whether this call did."""
        day = entry.last_due(datetime.now(self._zone))
        if self._submitted.get(entry.name) == day:
            return False
        submitted = self._producer.submit(entry.task, [], task_id=entry.task_id(day))
        self._submitted[entry.name] = day
        if submitted:
            log.info("task_scheduled", task_id=entry.task_id(day))
        return submitted

    def _missed(self) -> None:
        for entry in TIMETABLE:
            self.submit_if_due(entry)


def _guarded(job: Callable[[], object], name: str) -> Callable[[], None]:
    """A job that fails because a server is away, or has no tables yet, says so in a line and has its next turn."""

    def guarded() -> None:
        try:
            job()
        except (DreamError, SQLAlchemyError) as error:
            said = explain(error) if isinstance(error, SQLAlchemyError) else error
            told = f"{type(said).__name__}: {said}".splitlines()[0]
            log.warning("job_failed", job=name, error=told)

    return guarded


def run(settings: Settings, entries: Sequence[Entry] = ()) -> int:
    """Keep the timetable, and send what else is due, until SIGTERM or SIGINT; returns the exit code."""
    refuse_cluster(settings)
    stop = StopSignal()
    runner = Runner(settings, entries)
    runner.start()
    log.info("scheduler_ready", timezone=settings.timezone)
    say_ready(settings)
    with Presence(settings, "scheduler"):
        while not stop.wait(_SHOW_LIFE_EVERY_S):
            show_life(settings)
    log.info("scheduler_stopping")
    runner.stop()
    return 0
