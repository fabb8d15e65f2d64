"""Tasks of dream's own that Celery's producers have sent: staged side by side, accepted together.

message ─► order (its bytes staged) ─┐
message ─► order                     ├─► one transaction ─► their messages
message ─► order                    ─┘
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from dream.compat.app.own import OwnTask
from dream.compat.exceptions import CeleryError
from dream.errors import InvalidArguments
from dream.fault_points import step
from dream.messages import QUEUES

if TYPE_CHECKING:
    from dream.bridge.protocol import Taken
    from dream.compat.app import Celery
    from dream.compat.envelope import Envelope
    from dream.producer import Order, Producer

__all__ = ["Accepted", "OwnTasks"]

#: Uploads that are staged at a time: each waits for the disk or the object store.
_STAGED_AT_ONCE = 8
#: What is wrong with a message and stays wrong.
_REFUSALS = (CeleryError, InvalidArguments, ArithmeticError, TypeError, ValueError)


@dataclass
class Accepted:
    """What became of messages."""

    #: Recorded, now or earlier.
    done: list[Taken] = field(default_factory=list)
    #: How many of these were not there yet.
    new: int = 0
    refused: list[tuple[Taken, str]] = field(default_factory=list)
    #: Why the others were not accepted: a server is away.
    trouble: Exception | None = None


class OwnTasks:
    """See the module.

    Parameters:
      app: the app with dream's own tasks.
      producer: accepts them.
    """

    def __init__(self, app: Celery, producer: Producer) -> None:
        self._app = app
        self._producer = producer
        self._staging = ThreadPoolExecutor(_STAGED_AT_ONCE, thread_name_prefix="stage")

    def accept(self, tasks: Sequence[tuple[Taken, Envelope]]) -> Accepted:
        """Accept what can be accepted; what keeps the others from it is in the answer, not raised."""
        accepted = Accepted()
        ordered: list[tuple[Taken, Envelope, Order]] = []
        running = [(taken, envelope, self._staging.submit(self._order, envelope)) for taken, envelope in tasks]
        for taken, envelope, future in running:
            try:
                ordered.append((taken, envelope, future.result()))
            except _REFUSALS as error:
                accepted.refused.append((taken, f"it was not accepted: {error}"))
            except Exception as error:  # noqa: BLE001 (the caller raises it)
                accepted.trouble = error
        try:
            self._accept_ordered(ordered, accepted)
        except Exception as error:  # noqa: BLE001 (the caller raises it)
            accepted.trouble = error
        return accepted

    def _accept_ordered(self, ordered: Sequence[tuple[Taken, Envelope, Order]], accepted: Accepted) -> None:
        if not ordered:
            return
        try:
            accepted.new = self._record([order for _, _, order in ordered])
            accepted.done = [taken for taken, _, _ in ordered]
        except _REFUSALS:
            for taken, envelope, _ in ordered:
                self._accept_alone(taken, envelope, accepted)

    def _accept_alone(self, taken: Taken, envelope: Envelope, accepted: Accepted) -> None:
        """One of several that were refused together, for the sake of the others."""
        try:
            accepted.new += self._record([self._order(envelope)])
            accepted.done.append(taken)
        except _REFUSALS as error:
            accepted.refused.append((taken, f"it was not accepted: {error}"))

    def _order(self, envelope: Envelope) -> Order:
        if envelope.link or envelope.link_error:
            raise InvalidArguments("a task of dream's own calls no next one (link, link_error)")
        task = self._app.tasks[envelope.task]
        assert isinstance(task, OwnTask)  # noqa: S101 (all of that app are)
        return task.order(
            envelope.args,
            envelope.kwargs,
            producer=self._producer,
            task_id=envelope.id,
            eta=datetime.fromisoformat(envelope.eta) if envelope.eta else None,
            expires=datetime.fromisoformat(envelope.expires) if envelope.expires else None,
            queue=envelope.queue if envelope.queue in QUEUES else None,
        )

    @step("bridge_accept")
    def _record(self, orders: Sequence[Order]) -> int:
        """Rows and messages, all in one transaction; how many are new."""
        return sum(self._producer.accept_all(orders))

    def close(self) -> None:
        self._staging.shutdown()
