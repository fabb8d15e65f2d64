"""Periodic tasks of a Celery-compatible app: each due time is sent once, however many schedulers run.

    due? ─► take the run in its row ─► send it ─► the row says that it is sent
                  ▲ one scheduler can          └── taken and not sent for a while: whoever sees it sends it

A run's id follows from its entry and its time, so that one that is sent again is the same run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dream.db import periodic
from dream.errors import DreamError
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.db import Database

__all__ = ["Entry", "Periodic"]

log = get_logger(__name__)

#: A run that was taken and is not sent after this is sent by whoever sees it.
_SENT_WITHIN_S = 10.0
#: Entries that are not noted for days are removed (`dream.db.retention`).
_NOTE_SEEN_EVERY_S = 3600.0
_LONGEST_PAUSE_S = 5.0
_SHORTEST_PAUSE_S = 0.05


class Entry(Protocol):
    """A task that runs again and again."""

    @property
    def name(self) -> str:
        """What its row is called."""

    def is_due(self, counted_from: datetime) -> tuple[bool, float]:
        """Whether the run after that time is due, and in how many seconds to ask again."""

    def due_at(self, counted_from: datetime, now: datetime) -> datetime:
        """From when the run after the one that is due is counted."""

    def is_known(self, task_id: str) -> bool:
        """Whether the run has begun, as far as can be told.

        Raises:
          DreamError: who knows is away.
        """

    def send(self, task_id: str) -> None:
        """Put a run on its queue; nothing changes where the broker sees that it was there already.

        Raises:
          DreamError: it cannot be sent; `permanent` says whether it may help to try again.
        """


class Periodic:
    """Sends what is due.

    Parameters:
      database: where runs are taken.
      entries: what runs again and again.
    """

    def __init__(self, database: Database, entries: Sequence[Entry]) -> None:
        self._database = database
        self._entries = {entry.name: entry for entry in entries}
        self._counted_from: dict[str, datetime] = {}
        self._look_for_left_at = 0.0

    def send_due(self) -> float:
        """Send what is due; returns the seconds until there may be more.

        Raises:
          SQLAlchemyError: the database is away.
        """
        self._look_up()
        if time.monotonic() >= self._look_for_left_at:
            self._look_for_left_at = time.monotonic() + _LONGEST_PAUSE_S
            self._send_left()
        pauses = [self._look_after(entry) for entry in self._entries.values()]
        return max(_SHORTEST_PAUSE_S, min([_LONGEST_PAUSE_S, *pauses]))

    def _look_up(self) -> None:
        """Learn about entries that this process has not seen; new ones count from now."""
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
        # From the time that counts now: what sending took does not put off the next.
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
                log.warning("periodic_task_deferred", entry=entry.name, task_id=task_id, error=str(error))
                return
            # Its entry is wrong: to send it again cannot help, and the others must go on.
            log.error("periodic_task_not_sent", entry=entry.name, error=f"{type(error).__name__}: {error}")
        else:
            log.info("periodic_task_sent", entry=entry.name, task_id=task_id)
        with self._database.begin() as session:
            periodic.sent(session, entry.name, task_id)
