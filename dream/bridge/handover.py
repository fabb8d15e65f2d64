"""How a message that was taken is handed over: sorted, then given to the producer, put on a queue, or parked.

    Redis to the same Redis   on our queue and out of flight in one script
    else                      on our queue, each delivery once; then gone from its source
    tasks of ours             rows in the database, each id once; then gone from their source (`dream.bridge.own`)
    not understood            parked, each message once, and its task stored as failed; then gone from its source

RabbitMQ as our broker cannot tell whether it has a message: there a bridge that is killed between the two leaves a
second copy, which workers drop (`dream.bridge.sent`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from dream.bridge.protocol import Refused, Taken, read
from dream.bridge.results import ParkedResults
from dream.bridge.sent import Sent
from dream.broker.redis import RedisBroker
from dream.compat.envelope import Envelope
from dream.compat.routes import queues_of
from dream.compat.worker.revoked import revoked_among
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import DELIVERY_ID, OWN_TASKS, QUEUES

if TYPE_CHECKING:
    from dream.bridge.own import OwnTasks
    from dream.bridge.parked import ParkingPlace
    from dream.bridge.revocations import Revocation
    from dream.bridge.sources import Origin
    from dream.broker import AnyBroker
    from dream.compat.app import Celery
    from dream.settings import Settings

__all__ = ["Handover", "Moved"]

log = get_logger(__name__)

#: Messages with what they say.
Tasks = Sequence[tuple[Taken, Envelope]]
#: A delivery is known again for so long: a message that a worker of Celery lost comes back after its visibility
#: time-out, an hour by default.
_REMEMBERED_S = 86400


@dataclass
class Moved:
    """What became of messages."""

    handed_over: int = 0
    duplicates: int = 0
    parked: int = 0

    @property
    def total(self) -> int:
        return self.handed_over + self.duplicates + self.parked


class Handover:
    """See the module.

    Parameters:
      settings: where our servers are.
      app: whose tasks workers know beside dream's own; finalized.
      own: dream's own tasks.
      broker: ours.
      parking: for what is not understood.
      tells: whether to store a FAILURE for each parked task.
    """

    def __init__(
        self,
        settings: Settings,
        app: Celery,
        own: OwnTasks,
        broker: AnyBroker,
        parking: ParkingPlace,
        *,
        tells: bool = True,
    ) -> None:
        self._settings = settings
        self._app = app
        self._own = own
        self._broker = broker
        self._parking = parking
        self._results = ParkedResults(settings, app)
        self._tells = tells
        self._sent = Sent(settings, broker, _REMEMBERED_S)
        self._zone = ZoneInfo(settings.timezone)
        self._queues = {*QUEUES, *queues_of(app)}

    def move(self, origin: Origin, taken: Sequence[Taken], moved: Moved) -> None:
        """Hand these over, and let their origin forget them.

        Parameters:
          moved: is told what became of them, also where the rest raises.

        Raises:
          DreamError: a server is away; what is not done stays there.
        """
        refused, tasks = self.sort(taken)
        own = [each for each in tasks if each[1].task in OWN_TASKS]
        foreign = [each for each in tasks if each[1].task not in OWN_TASKS]
        self._put(origin, foreign, moved)
        self._accept(origin, own, refused, moved)
        self._park(origin, refused, moved)

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
        self._check_known(envelope.task, "a task")
        for link in (*envelope.link, *envelope.link_error):
            self._check_known(link.get("task"), "its link")
        try:
            envelope.to_message().encode()
        except (RecursionError, TypeError, ValueError) as error:  # AMQP's headers may have more types than JSON
            raise Refused(f"JSON cannot carry it: {error}") from None
        return envelope

    def _check_known(self, task: Any, what: str) -> None:
        if not isinstance(task, str) or (task not in OWN_TASKS and task not in self._app.tasks):
            if str(task).startswith("celery."):
                raise Refused(f"{what} {task!r:.200} is a work flow or a task of Celery's own, which is not supported")
            raise Refused(f"no worker knows {what} {task!r:.200}: name its app with --app")

    def revoke(self, revocation: Revocation) -> None:
        """Let our workers know of it, whether or not the tasks have been moved.

        Raises:
          OperationalError: Redis is away.
        """
        self._app.control.announce_revoked(revocation.task_ids, terminate=revocation.terminate)
        log.info("revocation_passed_on", count=len(revocation.task_ids), terminate=revocation.terminate)

    def close(self) -> None:
        self._own.close()
        self._sent.close()
        self._results.close()

    # --- an app's tasks

    def _put(self, origin: Origin, tasks: Tasks, moved: Moved) -> None:
        if not tasks:
            return
        is_same = False
        if isinstance(self._broker, RedisBroker):
            is_same = bool(origin.in_flight_key) and origin.is_on(self._settings.broker_url)
            outcome = self._hand_over(self._broker, tasks, origin.in_flight_key if is_same else "")
            new, known = outcome.count(1), outcome.count(0)
        else:
            new = self._send_once(tasks)
            known = len(tasks) - new
        moved.handed_over += new
        if not is_same:
            origin.done([taken for taken, _ in tasks])
        # Where the source could not forget them they come once more, and are counted then.
        moved.duplicates += known

    @step("bridge_hand_over")
    def _hand_over(self, broker: RedisBroker, tasks: Tasks, in_flight: str) -> list[int]:
        deliveries = [
            (taken.tag, self._message(envelope), round(envelope.delay_s * 1000) or None) for taken, envelope in tasks
        ]
        return broker.hand_over(deliveries, in_flight, remembered_s=_REMEMBERED_S)

    @step("bridge_hand_over")
    def _send_once(self, tasks: Tasks) -> int:
        envelopes = {envelope.delivery_id: envelope for _, envelope in tasks}
        unknown = self._sent.unknown(list(envelopes))
        new = {each: envelope for each, envelope in envelopes.items() if each in unknown}
        self._sent.send({each: (self._message(envelope), envelope.delay_s) for each, envelope in new.items()})
        return len(new)

    def _message(self, envelope: Envelope) -> Any:
        """On the queue that it names, where workers take from that; Celery's `celery` is our default queue."""
        queue = envelope.queue if envelope.queue in self._queues else str(self._app.conf.task_default_queue)
        message = envelope.to_message(self._settings.queue_prefix)
        assert DELIVERY_ID in message.options  # noqa: S101 (what makes it one delivery)
        return message.copy(queue_name=self._settings.queue_prefix + queue)

    # --- tasks of ours

    def _accept(self, origin: Origin, tasks: Tasks, refused: list[tuple[Taken, str]], moved: Moved) -> None:
        if not tasks:
            return
        accepted = self._own.accept(self._with_revoked(tasks))
        refused.extend(accepted.refused)
        moved.handed_over += accepted.new
        origin.done(accepted.done)
        moved.duplicates += len(accepted.done) - accepted.new
        if accepted.trouble is not None:
            self._park(origin, refused, moved)
            raise accepted.trouble

    def _with_revoked(self, tasks: Tasks) -> Tasks:
        """The same; those that were revoked before they had a row expire at once."""
        revoked, at = revoked_among(self._settings, [each.id for _, each in tasks]), datetime.now(UTC).isoformat()
        return [(taken, replace(each, expires=at) if each.id in revoked else each) for taken, each in tasks]

    # --- what is not understood

    def park(self, refused: Sequence[tuple[Taken, str]]) -> None:
        """Park these messages, and store a FAILURE for their tasks.

        Raises:
          RedisError, ResultsUnavailable: Redis is away.
        """
        parked = self._parking.put(refused)
        if self._tells:
            self._results.end(parked)

    def forget_failures(self, replayed: Sequence[Taken]) -> None:
        """Remove the FAILURE of parked messages that are handed over now.

        Raises:
          RedisError: Redis is away.
        """
        self._results.forget(each.raw for each in replayed)

    def _park(self, origin: Origin, refused: Sequence[tuple[Taken, str]], moved: Moved) -> None:
        if not refused:
            return
        self.park(refused)
        origin.parked([taken for taken, _ in refused])
        moved.parked += len(refused)
        for taken, reason in refused:
            log.warning("message_parked", queue=taken.queue, reason=reason)
