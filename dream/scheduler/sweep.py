"""The sweep: find in rows the tasks with lost messages, and send them again; repeat announcements that failed.

It runs in the scheduler, because an actor would wait behind the pictures. Two sweeps at a time do no harm.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from dream.db import DreamTask, tasks
from dream.errors import BrokerUnavailable
from dream.log import get_logger
from dream.observe.metrics import RESENT
from dream.runs import outcomes
from dream.runs.sending import missing, queue_name, send_missing
from dream.work.broker import unavailable_as_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dream.db.tasks import Overdue
    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["Sweep"]

log = get_logger(__name__)

#: RabbitMQ cannot tell which messages it has: the gap between two tries doubles, up to this.
_LONGEST_GAP_S = 600.0
#: The sweep looks for tasks overdue by this share of `DREAM_RESEND_AFTER_S`. It comes every quarter of that time, so
#: that a lost message is sent within the whole.
_LOST_AT = 0.5
#: A worker announces an outcome at once; the sweep repeats it after this time.
_UNSAID_S = 5.0
_ANNOUNCE_AT_ONCE = 200
#: Failed announcements, one after another, after which the sweep waits for its next time: Redis is away.
_FAILURES = 3
#: The number of overdue tasks on a page, without their arguments.
_PAGE = 1000
#: The number of tasks whose arguments are in memory together.
_SEND_AT_ONCE = 50


class Sweep:
    """See the module.

    Parameters:
      settings: the time after which a task is overdue.
      connections: the rows, the broker, the events and the results.
      moved: called with the job's name as the work goes on: thousands of tasks may take long.
    """

    def __init__(
        self, settings: Settings, connections: Connections, moved: Callable[[str], None] = lambda _job: None
    ) -> None:
        self._moved = moved
        self._settings = settings
        self._connections = connections
        self._database = connections.database
        self._broker = connections.broker

    def resend(self) -> int:
        """Send the overdue tasks whose messages the broker lost again; return their number.

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
        """Overdue tasks, page by page; of each queue at most as many as `_doubted` gives."""
        overdue_s, page = self._settings.resend_after_s * _LOST_AT, None
        # A resent task moves behind the others: it must not come a second time.
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
        """The number of tasks to resend, by queue; None means all, if the broker can be asked for each message."""
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
        self._moved("resend")
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
            RESENT.add()
            log.info("task_resent", task_id=task.id, attempt=task.attempts + 1)
        return is_sent

    def _is_my_turn(self, task: Overdue) -> bool:
        gap_s = min(self._settings.resend_after_s * 2**task.resends, _LONGEST_GAP_S)
        with self._database.begin() as session:
            return tasks.may_resend(session, task, gap_s)

    def _give_turn_back(self, task: Overdue) -> None:
        """Give back the turn of tasks that could not be sent, so that an outage does not delay them."""
        with self._database.begin() as session:
            tasks.undo_resend(session, task)

    def announce(self) -> int:
        """Announce the outcomes of tasks that are not announced; return the number of tries."""
        count = 0
        while True:
            with self._database.read() as session:
                unsaid = tasks.unannounced(session, _UNSAID_S, _ANNOUNCE_AT_ONCE)
            told: list[bool] = []
            # In random order, so that three that fail for reasons of their own do not always stop the same others.
            for row in random.sample(unsaid, len(unsaid)):
                self._moved("announce")
                told.append(outcomes.announce(self._connections, row.id))
                if told[-_FAILURES:] == [False] * _FAILURES:
                    break
            count += len(told)
            if len(told) < _ANNOUNCE_AT_ONCE or not all(told):
                return count
