"""How a message that was taken is handed over: sorted, then given to the producer, put on a queue, or parked.

    Redis to the same Redis   on our queue and out of flight in one script
    else                      on our queue, each delivery once; then gone from its source
    a task of ours            a row in the database, each id once; then gone from its source
    not understood            parked, each message once; then gone from its source

RabbitMQ as our broker cannot tell whether it has a message: there a bridge that is killed between the two leaves a
delivery that may come twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from dream.bridge.protocol import Refused, Taken, read
from dream.broker import send
from dream.broker.redis import RedisBroker
from dream.compat.exceptions import CeleryError
from dream.compat.routes import named_queues, queue_names
from dream.errors import InvalidArguments
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import ALIASES, CLEANUP_TOKENS, DELETE_IMAGES, DELIVERY_ID, PROCESS_IMAGES, QUEUES

if TYPE_CHECKING:
    from dream.bridge.parked import ParkingPlace
    from dream.bridge.sources import Source
    from dream.broker import AnyBroker
    from dream.compat.app import Celery
    from dream.compat.envelope import Envelope
    from dream.settings import Settings

__all__ = ["Handover", "Moved"]

log = get_logger(__name__)

OWN = frozenset({PROCESS_IMAGES, DELETE_IMAGES, CLEANUP_TOKENS, *ALIASES})
#: A delivery is known again for so long: a message that a worker of Celery lost comes back after its visibility
#: time-out, an hour by default.
_REMEMBERED_S = 86400
#: Tasks of ours that are accepted at a time: each waits for the object store and the database.
_ACCEPTED_AT_ONCE = 8


@dataclass
class Moved:
    """What became of messages."""

    handed_over: int = 0
    duplicates: int = 0
    parked: int = 0

    @property
    def total(self) -> int:
        return self.handed_over + self.duplicates + self.parked

    def add(self, other: Moved) -> None:
        self.handed_over += other.handed_over
        self.duplicates += other.duplicates
        self.parked += other.parked


class Handover:
    """See the module.

    Parameters:
      settings: where our servers are.
      app: whose tasks workers know beside dream's own; finalized.
      own: the app with dream's own tasks.
      broker: ours.
      parking: for what is not understood.
    """

    def __init__(self, settings: Settings, app: Celery, own: Celery, broker: AnyBroker, parking: ParkingPlace) -> None:
        self._settings = settings
        self._app = app
        self._own = own
        self._broker = broker
        self._parking = parking
        self._zone = ZoneInfo(settings.timezone)
        conf = app.conf
        self._queues = {*QUEUES, conf.task_default_queue, *queue_names(conf.task_queues)}
        self._queues.update(named_queues(conf.task_routes))
        self._queues.update(queue for task in app.tasks.values() if (queue := getattr(task, "queue", None)))
        self._accepting = ThreadPoolExecutor(_ACCEPTED_AT_ONCE, thread_name_prefix="accept")

    def move(self, source: Source, taken: Sequence[Taken]) -> Moved:
        """Hand these over, and let the source forget them.

        Raises:
          DreamError: a server is away; what is not done stays with the source.
        """
        refused, tasks = self.sort(taken)
        own = [each for each in tasks if each[1].task in OWN]
        foreign = [each for each in tasks if each[1].task not in OWN]
        moved = self._put(source, foreign)
        moved.add(self._accept(source, own, refused))
        self._park(source, refused)
        moved.parked = len(refused)
        return moved

    def sort(self, taken: Iterable[Taken]) -> tuple[list[tuple[Taken, str]], list[tuple[Taken, Envelope]]]:
        """What is not understood, each with the reason, and what is."""
        refused: list[tuple[Taken, str]] = []
        understood: list[tuple[Taken, Envelope]] = []
        for each in taken:
            try:
                understood.append((each, self._understood(each)))
            except Refused as error:
                refused.append((each, str(error)))
        return refused, understood

    def _understood(self, taken: Taken) -> Envelope:
        envelope = read(taken, self._zone)
        if envelope.task not in OWN and envelope.task not in self._app.tasks:
            raise Refused(f"no worker knows a task {envelope.task!r}: name its app with --app")
        try:
            envelope.to_message().encode()
        except (RecursionError, TypeError, ValueError) as error:  # AMQP's headers may have more types than JSON
            raise Refused(f"JSON cannot carry it: {error}") from None
        return envelope

    def close(self) -> None:
        self._accepting.shutdown()

    # --- an app's tasks

    def _put(self, source: Source, tasks: Sequence[tuple[Taken, Envelope]]) -> Moved:
        if not tasks:
            return Moved()
        if isinstance(self._broker, RedisBroker):
            new = self._put_once(self._broker, source, tasks)
        else:
            new = self._send(tasks)
            source.done([taken for taken, _ in tasks])
        return Moved(handed_over=new, duplicates=len(tasks) - new)

    def _put_once(self, broker: RedisBroker, source: Source, tasks: Sequence[tuple[Taken, Envelope]]) -> int:
        is_same = bool(source.in_flight_key) and source.is_on(self._settings.broker_url)
        outcome = self._hand_over(broker, tasks, source.in_flight_key if is_same else "")
        if not is_same:
            source.done([taken for taken, _ in tasks])
        return outcome.count(1)

    @step("bridge_hand_over")
    def _hand_over(self, broker: RedisBroker, tasks: Sequence[tuple[Taken, Envelope]], in_flight: str) -> list[int]:
        deliveries = [
            (taken.tag, self._message(envelope), round(envelope.delay_s * 1000) or None) for taken, envelope in tasks
        ]
        return broker.hand_over(deliveries, in_flight, remembered_s=_REMEMBERED_S)

    @step("bridge_hand_over")
    def _send(self, tasks: Sequence[tuple[Taken, Envelope]]) -> int:
        for _, envelope in tasks:
            send(self._broker, self._message(envelope), envelope.delay_s)
        return len(tasks)

    def _message(self, envelope: Envelope) -> Any:
        """On the queue that it names, where workers take from that; Celery's `celery` is our default queue."""
        queue = envelope.queue if envelope.queue in self._queues else str(self._app.conf.task_default_queue)
        message = envelope.to_message(self._settings.queue_prefix)
        assert DELIVERY_ID in message.options  # noqa: S101 (what makes it one delivery)
        return message.copy(queue_name=self._settings.queue_prefix + queue)

    # --- tasks of ours

    def _accept(
        self, source: Source, tasks: Sequence[tuple[Taken, Envelope]], refused: list[tuple[Taken, str]]
    ) -> Moved:
        accepted: list[Taken] = []
        trouble: Exception | None = None
        running = [(taken, self._accepting.submit(self._accept_one, envelope)) for taken, envelope in tasks]
        for taken, future in running:
            try:
                future.result()
            except (CeleryError, InvalidArguments, ArithmeticError, TypeError, ValueError) as error:
                refused.append((taken, f"it was not accepted: {error}"))
            except Exception as error:  # noqa: BLE001 (raised below, when the others are done)
                trouble = error
            else:
                accepted.append(taken)
        source.done(accepted)
        if trouble is not None:
            self._park(source, refused)
            raise trouble
        return Moved(handed_over=len(accepted))

    @step("bridge_accept")
    def _accept_one(self, envelope: Envelope) -> None:
        """A row, staged bytes and a message, unless a task of that id is there."""
        if envelope.link or envelope.link_error:
            raise InvalidArguments("a task of dream's own calls no next one (link, link_error)")
        self._own.tasks[envelope.task].apply_async(
            envelope.args,
            envelope.kwargs,
            task_id=envelope.id,
            eta=datetime.fromisoformat(envelope.eta) if envelope.eta else None,
            expires=datetime.fromisoformat(envelope.expires) if envelope.expires else None,
            queue=envelope.queue if envelope.queue in QUEUES else None,
        )

    # --- what is not understood

    def _park(self, source: Source, refused: Sequence[tuple[Taken, str]]) -> None:
        if not refused:
            return
        self._parking.put(refused)
        source.done([taken for taken, _ in refused])
        for taken, reason in refused:
            log.warning("message_parked", queue=taken.queue, reason=reason)
