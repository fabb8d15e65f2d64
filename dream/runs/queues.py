"""The state of the queues, for metrics and `dream top`: messages by the broker, tasks of dream's own by their rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from dream.db import backlog
from dream.messages.registry import QUEUES, queue_of
from dream.work.broker import unavailable_as_error

if TYPE_CHECKING:
    from dream.db import Database
    from dream.db.backlog import Counts
    from dream.settings import Settings
    from dream.work.broker import AnyBroker, Depth

__all__ = ["Due", "depths", "due"]


class Due(NamedTuple):
    """Tasks with a row.

    Parameters:
      waiting: by queue without prefix, the number of tasks that are due and have no run; see `MOST_COUNTED`.
      oldest_age_s: by queue, seconds since the oldest of them was due; 0 if none waits.
      counts: tasks in a run, failed tasks, unfinished pictures.
    """

    waiting: dict[str, int]
    oldest_age_s: dict[str, float]
    counts: Counts


def due(database: Database) -> Due:
    """Ask the rows. This answers while the broker is away, too, and while no worker runs.

    Raises:
      SQLAlchemyError: the database is away.
    """
    with database.read() as session:
        rows, counts = backlog.waiting(session), backlog.counts(session)
    waiting, oldest_age_s = dict.fromkeys(QUEUES, 0), dict.fromkeys(QUEUES, 0.0)
    for row in rows:
        queue = row.queue or queue_of(row.name)
        waiting[queue] = waiting.get(queue, 0) + row.tasks
        oldest_age_s[queue] = max(oldest_age_s.get(queue, 0.0), row.oldest_age_s)
    return Due(waiting, oldest_age_s, counts)


def depths(settings: Settings, broker: AnyBroker, queues: Iterable[str] = QUEUES) -> dict[str, Depth]:
    """Ask the broker for the number of messages, by queue without prefix. Tasks of callers count, too.

    Raises:
      BrokerUnavailable
    """
    with unavailable_as_error():
        return {queue: broker.depth(settings.queue_prefix + queue) for queue in queues}
