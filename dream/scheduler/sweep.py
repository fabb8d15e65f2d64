"""The sweep: what the database knows as unfinished or unsaid is sent or said again.

It runs in the scheduler, for as an actor it would wait behind the images. Two sweeps at a time do no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream import outcomes
from dream.broker import missing, send_missing
from dream.db import DreamTask, announcements, tasks
from dream.errors import BrokerUnavailable
from dream.log import get_logger
from dream.results import ResultStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dream.broker import AnyBroker
    from dream.db import Database
    from dream.notifications import Publisher
    from dream.settings import Settings

__all__ = ["Sweep"]

log = get_logger(__name__)

#: RabbitMQ cannot be asked what it holds: the gap between two tries doubles, up to this.
_LONGEST_GAP_S = 600.0
#: A task overdue by this share of `DREAM_RESEND_AFTER_S` is looked for: the sweep comes every quarter of it, so that
#: what is lost is sent within the whole.
_LOST_AT = 0.5
#: A worker announces what it has finished at once; what is unsaid after this is said here.
_UNSAID_S = 5.0
_ANNOUNCE_AT_ONCE = 200


class Sweep:
    """See the module."""

    def __init__(self, settings: Settings, database: Database, broker: AnyBroker, publisher: Publisher) -> None:
        self._settings = settings
        self._database = database
        self._broker = broker
        self._publisher = publisher
        self._results = ResultStore(settings)

    def resend(self) -> int:
        """Send again what is overdue and whose message the broker lost; returns how many tasks.

        Raises:
          BrokerUnavailable
        """
        with self._database.read() as session:
            overdue = tasks.overdue(session, self._settings.resend_after_s * _LOST_AT)
        sent = sum(self._resend(task) for task in missing(self._broker, self._settings, overdue))
        if sent:
            log.warning("tasks_resent", count=sent)
        return sent

    def _resend(self, task: DreamTask) -> bool:
        can_ask = self._broker.can_be_asked
        if not can_ask and not self._is_my_turn(task):
            return False
        try:
            is_sent = send_missing(self._broker, self._settings, task)
        except BrokerUnavailable:
            if not can_ask:
                self._give_turn_back(task)
            raise
        if is_sent:
            log.info("task_resent", task_id=task.id, attempt=task.attempts + 1)
        return is_sent

    def _is_my_turn(self, task: DreamTask) -> bool:
        gap_s = min(self._settings.resend_after_s * 2**task.resends, _LONGEST_GAP_S)
        with self._database.begin() as session:
            return tasks.may_resend(session, task, gap_s)

    def _give_turn_back(self, task: DreamTask) -> None:
        """The broker is away: what was not sent must not wait the longer for it."""
        with self._database.begin() as session:
            tasks.give_turn_back(session, task)

    def announce(self) -> int:
        """Say what finished tasks could not say; returns how many tried."""
        with self._database.read() as session:
            unsaid: Sequence[DreamTask] = announcements.unannounced(session, _UNSAID_S, _ANNOUNCE_AT_ONCE)
        for task in unsaid:
            outcomes.announce(self._database, self._publisher, self._results, task.id)
        return len(unsaid)

    def close(self) -> None:
        """Close what it opened itself: the connections to the results."""
        self._results.close()
