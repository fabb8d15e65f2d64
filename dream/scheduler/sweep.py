"""The sweep: what the database knows as unfinished or unsaid is sent or said again.

It runs in the scheduler, for as an actor it would wait behind the images. Two sweeps at a time do no harm.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dream import outcomes
from dream.broker import missing, queue_name, send_missing, unavailable_as_error
from dream.db import DreamTask, announcements, tasks
from dream.errors import BrokerUnavailable
from dream.log import get_logger
from dream.results import ResultStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dream.broker import AnyBroker
    from dream.db import Database
    from dream.db.tasks import Overdue
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
#: Overdue tasks of a page, without their arguments.
_PAGE = 1000
#: Tasks whose arguments are in memory together.
_SEND_AT_ONCE = 50


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
        sent = 0
        for page in self._pages():
            lost = missing(self._broker, self._settings, page)
            for start in range(0, len(lost), _SEND_AT_ONCE):
                sent += self._send_again(lost[start : start + _SEND_AT_ONCE])
        if sent:
            log.warning("tasks_resent", count=sent)
        return sent

    def _pages(self) -> Iterator[list[Overdue]]:
        """Overdue tasks, page by page, at most as many of each queue as the broker doubts."""
        overdue_s, page = self._settings.resend_after_s * _LOST_AT, None
        # A task that is sent again moves behind the others: it must not come a second time.
        gap_s = 0.0 if self._broker.can_be_asked else self._settings.resend_after_s
        left = self._doubted(overdue_s)
        while left is None or left.total():
            with self._database.read() as session:
                after = page[-1] if page else None
                page = tasks.overdue(session, overdue_s, limit=_PAGE, after=after, gap_s=gap_s)
            if not page:
                return
            yield page if left is None else list(self._within(page, left))

    def _doubted(self, overdue_s: float) -> Counter[str] | None:
        """How many tasks of each queue to send again; None for all, where the broker can be asked for each message."""
        if self._broker.can_be_asked:
            return None
        counts: Counter[str] = Counter()
        with self._database.read() as session:
            for (name, queue), count in tasks.count_overdue(session, overdue_s).items():
                counts[queue_name(self._settings, name, queue)] += count
        with unavailable_as_error():
            return Counter({queue: self._broker.doubted(queue, count) for queue, count in counts.items()})

    def _within(self, page: Sequence[Overdue], left: Counter[str]) -> Iterator[Overdue]:
        for task in page:
            queue = queue_name(self._settings, task.name, task.queue)
            if left[queue] > 0:
                left[queue] -= 1
                yield task

    def _send_again(self, lost: Sequence[Overdue]) -> int:
        with self._database.read() as session:
            found = {task.id: task for task in tasks.to_send(session, [turn.id for turn in lost])}
        # In the order of `lost`; a task without a row was removed meanwhile.
        return sum(self._resend(turn, found[turn.id]) for turn in lost if turn.id in found)

    def _resend(self, turn: Overdue, task: DreamTask) -> bool:
        can_ask = self._broker.can_be_asked
        if not can_ask and not self._is_my_turn(turn):
            return False
        try:
            is_sent = send_missing(self._broker, self._settings, task)
        except BrokerUnavailable:
            if not can_ask:
                self._give_turn_back(turn)
            raise
        if is_sent:
            log.info("task_resent", task_id=task.id, attempt=task.attempts + 1)
        return is_sent

    def _is_my_turn(self, task: Overdue) -> bool:
        gap_s = min(self._settings.resend_after_s * 2**task.resends, _LONGEST_GAP_S)
        with self._database.begin() as session:
            return tasks.may_resend(session, task, gap_s)

    def _give_turn_back(self, task: Overdue) -> None:
        """The broker is away: what was not sent must not wait the longer for it."""
        with self._database.begin() as session:
            tasks.give_turn_back(session, task)

    def announce(self) -> int:
        """Say what finished tasks could not say; returns how many tried."""
        count = 0
        while True:
            with self._database.read() as session:
                unsaid = announcements.unannounced(session, _UNSAID_S, _ANNOUNCE_AT_ONCE)
            told = [outcomes.announce(self._database, self._publisher, self._results, row.id) for row in unsaid]
            count += len(told)
            if len(told) < _ANNOUNCE_AT_ONCE or not all(told):
                return count

    def close(self) -> None:
        """Close what it opened itself: the connections to the results."""
        self._results.close()
