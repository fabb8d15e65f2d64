"""Accept dream's own tasks from Celery's producers: stage their bytes side by side, write their rows together.

envelope ─► order (its bytes staged) ─┐
envelope ─► order                     ├─► one transaction ─► their messages
envelope ─► order                    ─┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

from dream.celery.own import own_task
from dream.compat.exceptions import CeleryError
from dream.errors import InvalidArguments
from dream.fault_points import step
from dream.messages.registry import QUEUES

if TYPE_CHECKING:
    from dream.compat.envelope import Envelope
    from dream.compat.host import Accepted
    from dream.producer import Order, Producer

__all__ = ["OwnTasks"]

#: Uploads that are staged at a time: each waits for the disk or the object store.
_STAGED_AT_ONCE = 8
#: Errors of a message that is wrong and stays wrong.
_REFUSALS = (CeleryError, InvalidArguments, ArithmeticError, TypeError, ValueError)


class OwnTasks:
    """See the module, and `dream.compat.host.Acceptor`.

    Parameters:
      producer: accepts them.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._staging = ThreadPoolExecutor(_STAGED_AT_ONCE, thread_name_prefix="stage")

    def accept(self, tasks: Sequence[Envelope]) -> list[Accepted]:
        """Accept as many tasks as possible; return the outcome of each."""
        staging = [self._staging.submit(self._order, envelope) for envelope in tasks]
        outcomes: dict[int, Accepted] = {}
        orders: dict[int, Order] = {}
        for index, future in enumerate(staging):
            try:
                orders[index] = future.result()
            except Exception as error:  # noqa: BLE001 (the caller raises it)
                outcomes[index] = _outcome_of(error)
        outcomes.update(self._recorded(orders, tasks))
        return [outcomes[index] for index in range(len(tasks))]

    def _recorded(self, orders: Mapping[int, Order], tasks: Sequence[Envelope]) -> dict[int, Accepted]:
        """The outcomes of orders, recorded in one transaction; if that refuses them, each in its own."""
        try:
            return dict(zip(orders, self._record(list(orders.values())), strict=True)) if orders else {}
        except _REFUSALS:
            return {index: self._recorded_alone(tasks[index]) for index in orders}
        except Exception as error:  # noqa: BLE001 (the caller raises it)
            return dict.fromkeys(orders, error)

    def _recorded_alone(self, envelope: Envelope) -> Accepted:
        try:
            return self._record([self._order(envelope)])[0]
        except Exception as error:  # noqa: BLE001 (the caller raises it)
            return _outcome_of(error)

    def _order(self, envelope: Envelope) -> Order:
        if envelope.link or envelope.link_error:
            raise InvalidArguments("a task of dream's own calls no next one (link, link_error)")
        return own_task(envelope.task).order(
            envelope.args,
            envelope.kwargs,
            producer=self._producer,
            task_id=envelope.id,
            eta=datetime.fromisoformat(envelope.eta) if envelope.eta else None,
            expires=datetime.fromisoformat(envelope.expires) if envelope.expires else None,
            queue=envelope.queue if envelope.queue in QUEUES else None,
        )

    @step("bridge_accept")
    def _record(self, orders: Sequence[Order]) -> list[bool]:
        """Write rows in one transaction and send the messages; return for each whether it is new."""
        return self._producer.accept_all(orders)

    def close(self) -> None:
        self._staging.shutdown()


def _outcome_of(error: Exception) -> Accepted:
    """The reason why a task is rejected, or the error of a server that is away."""
    return str(error) if isinstance(error, _REFUSALS) else error
