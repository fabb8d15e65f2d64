"""Gauges of the queues, the rows and the timetable. The scheduler sets them: they are right while no worker runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.db import backlog
from dream.observe.metrics import (
    PICTURES_UNFINISHED,
    QUEUE_MESSAGES,
    QUEUE_OLDEST,
    QUEUE_WAITING,
    TASKS,
    TIMETABLE_SUCCESS,
)
from dream.runs.queues import depths, due
from dream.runs.timetable import TIMETABLE

if TYPE_CHECKING:
    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["Gauges"]


class Gauges:
    """See the module.

    Parameters:
      settings: the prefix of the queues.
      connections: the rows and the broker.
    """

    #: Seconds between two looks: as often as Prometheus usually asks.
    every_s = 10.0

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections

    def look(self) -> None:
        """Read the rows, then ask the broker: the rows' gauges stay right while the broker is away.

        Raises:
          SQLAlchemyError, BrokerUnavailable
        """
        found = due(self._connections.database)
        for queue, waiting in found.waiting.items():
            QUEUE_WAITING.set(waiting, queue)
            QUEUE_OLDEST.set(found.oldest_age_s[queue], queue)
        TASKS.set(found.counts.running, "running")
        TASKS.set(found.counts.failed, "failed")
        PICTURES_UNFINISHED.set(found.counts.pictures)
        with self._connections.database.read() as session:
            for entry in TIMETABLE:
                if (at := backlog.last_success(session, f"{entry.name}:")) is not None:
                    TIMETABLE_SUCCESS.set(at.timestamp(), entry.name)
        for queue, depth in depths(self._settings, self._connections.broker).items():
            QUEUE_MESSAGES.set(depth.waiting, queue, "waiting")
            QUEUE_MESSAGES.set(depth.delayed, queue, "delayed")
