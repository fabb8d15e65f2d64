"""Send periodic tasks, dream's own and an app's: each due run is sent once, however many schedulers run.

    due? ─► take the run in its row ─► send it ─► the row says that it is sent
                  ▲ one scheduler can          └── taken but not sent for a while: any scheduler sends it

A run's id follows from its entry and its time, so that one that is sent again is the same run. A run of dream's own
timetable is taken by the task's row itself, and the sweep sends it if the broker was away.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dream.db import periodic
from dream.errors import DreamError
from dream.log import get_logger
from dream.observe.metrics import PERIODIC

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from dream.db import Database
    from dream.producer import Producer
    from dream.runs.timetable import Daily

__all__ = ["Entry", "OwnEntry", "Periodic"]

log = get_logger(__name__)

#: Seconds after which any scheduler sends a run that was taken but not sent.
_SENT_WITHIN_S = 10.0
#: Seconds between two notes that an entry exists; retention removes entries without a note for days.
_NOTE_SEEN_EVERY_S = 3600.0
_LONGEST_PAUSE_S = 5.0
_SHORTEST_PAUSE_S = 0.05


class OwnEntry:
    """An entry of dream's own timetable.

    Parameters:
      daily: the task, and when it is due.
      producer: accepts its runs.
      zone: the zone of the timetable.
    """

    def __init__(self, daily: Daily, producer: Producer, zone: ZoneInfo) -> None:
        self.name = daily.name
        self._daily = daily
        self._producer = producer
        self._zone = zone
        self._submitted: date | None = None

    def send_if_due(self) -> float:
        """Submit the newest due run unless it exists; return the seconds until the next run.

        Raises:
          DatabaseUnavailable
        """
        local_now = datetime.now(self._zone)
        day = self._daily.last_due(local_now)
        if self._submitted != day:
            task_id = self._daily.task_id(day)
            is_new = self._producer.submit(self._daily.task, [], task_id=task_id)
            self._submitted = day
            if is_new:
                log.info("task_scheduled", task_id=task_id)
        return (self._daily.next_after(local_now) - local_now.astimezone(UTC)).total_seconds()


class Entry(Protocol):
    """An entry of an app's schedule."""

    @property
    def name(self) -> str:
        """The name of its row."""

    def is_due(self, counted_from: datetime) -> tuple[bool, float]:
        """Whether the run after that time is due, and the seconds until the next call."""

    def due_at(self, counted_from: datetime, now: datetime) -> datetime:
        """The time from which the run after the due one is counted."""

    def is_known(self, task_id: str) -> bool:
        """Whether the run is known to have begun.

        Raises:
          DreamError: the results are away.
        """

    def send(self, task_id: str) -> None:
        """Put a run on its queue; a broker that knows the delivery ignores it.

        Raises:
          DreamError: the run cannot be sent; `permanent` says whether another attempt can help.
        """


class Periodic:
    """Sends the runs that are due.

    Parameters:
      database: has the rows by which runs are taken.
      entries: an app's entries.
      own: the entries of dream's own timetable.
    """

    def __init__(self, database: Database, entries: Sequence[Entry] = (), own: Sequence[OwnEntry] = ()) -> None:
        self._database = database
        self._own = own
        self._entries = {entry.name: entry for entry in entries}
        self._counted_from: dict[str, datetime] = {}
        self._look_for_left_at = 0.0

    def send_due(self) -> float:
        """Send the due runs; return the seconds until the next look.

        Raises:
          DatabaseUnavailable, SQLAlchemyError: the database is away.
        """
        pauses = [own.send_if_due() for own in self._own]
        if self._entries:
            self._look_up()
            if time.monotonic() >= self._look_for_left_at:
                self._look_for_left_at = time.monotonic() + _LONGEST_PAUSE_S
                self._send_left()
            pauses += [self._look_after(entry) for entry in self._entries.values()]
        return max(_SHORTEST_PAUSE_S, min([_LONGEST_PAUSE_S, *pauses]))

    def _look_up(self) -> None:
        """Read the rows of entries that this process has not seen; new entries count from now."""
        unseen = self._entries.keys() - self._counted_from.keys()
        if not unseen:
            return
        for name in unseen - self._refresh(unseen):
            with contextlib.suppress(IntegrityError), self._database.begin() as session:
                periodic.add(session, name)
        self._refresh(unseen)

    def _refresh(self, names: set[str]) -> set[str]:
        with self._database.read() as session:
            found = periodic.ran_at(session, names)
        self._counted_from.update(found)
        return set(found)

    def _look_after(self, entry: Entry) -> float:
        """Call `_send_if_due`; an error in the caller's schedule stops only its own entry."""
        try:
            return self._send_if_due(entry)
        except (DreamError, SQLAlchemyError):
            raise
        except BaseException as error:  # noqa: BLE001 (even an exit: the other entries must go on)
            log.error("periodic_task_not_looked_at", entry=entry.name, error=f"{type(error).__name__}: {error}")
            return _LONGEST_PAUSE_S

    def _send_if_due(self, entry: Entry) -> float:
        counted_from = self._counted_from[entry.name]
        is_due, pause_s = entry.is_due(counted_from)
        if not is_due:
            return pause_s
        due_at = entry.due_at(counted_from, datetime.now(UTC))
        task_id = str(uuid5(NAMESPACE_URL, f"{entry.name}@{counted_from.isoformat()}"))
        with self._database.begin() as session:
            is_mine = periodic.take(session, entry.name, counted_from, due_at, task_id)
        if is_mine:
            self._send(entry, task_id)
        self._refresh({entry.name})
        # Count from the stored time, so that a slow send does not delay the next run.
        is_due, pause_s = entry.is_due(self._counted_from[entry.name])
        return 0 if is_due else pause_s

    def _send_left(self) -> None:
        with self._database.begin() as session:
            periodic.note_seen(session, self._entries.keys(), _NOTE_SEEN_EVERY_S)
            left = periodic.take_over(session, self._entries.keys(), _SENT_WITHIN_S)
        for name, task_id in left.items():
            self._send(self._entries[name], task_id, is_again=True)

    def _send(self, entry: Entry, task_id: str, *, is_again: bool = False) -> None:
        try:
            if not (is_again and entry.is_known(task_id)):
                entry.send(task_id)
        except SQLAlchemyError:
            raise
        except BaseException as error:  # noqa: BLE001 (a caller's `apply_async` may raise anything)
            if isinstance(error, DreamError) and not error.permanent:
                PERIODIC.add("deferred")
                log.warning("periodic_task_deferred", entry=entry.name, task_id=task_id, error=str(error))
                return
            # The entry is wrong: another attempt cannot help, and the other entries must go on.
            PERIODIC.add("refused")
            log.error("periodic_task_not_sent", entry=entry.name, error=f"{type(error).__name__}: {error}")
        else:
            PERIODIC.add("sent")
            log.info("periodic_task_sent", entry=entry.name, task_id=task_id)
        with self._database.begin() as session:
            periodic.sent(session, entry.name, task_id)
