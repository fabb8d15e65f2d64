"""Hand over each message that the bridge took: give it to the host, put it on a queue, or park it.

    Redis to the same Redis   on dream's queue and out of flight in one script
    else                      on dream's queue, each delivery once; then gone from its source
    dream's own tasks         rows in the database, each id once; then gone from their source (`dream.compat.host`)
    not understood            parked, each message once, and its task stored as failed; then gone from its source

RabbitMQ as dream's broker cannot tell whether it has a message. A bridge that is killed between the two steps leaves a
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
from dream.compat.envelope import Envelope
from dream.compat.host import host
from dream.compat.queues import queues_of
from dream.compat.worker.unwanted import revoked_among
from dream.fault_points import step
from dream.log import get_logger
from dream.work.broker.redis import RedisBroker
from dream.work.messages import DELIVERY_ID

if TYPE_CHECKING:
    from dream.bridge.parked import ParkingPlace
    from dream.bridge.revocations import Revocation
    from dream.bridge.sources import Origin
    from dream.compat.app import Celery
    from dream.compat.host import Acceptor
    from dream.settings import Settings
    from dream.work.broker import AnyBroker

__all__ = ["Handover", "Moved"]

log = get_logger(__name__)

#: Messages, each with its envelope.
Tasks = Sequence[tuple[Taken, Envelope]]
#: Seconds for which a delivery is recognised: a message that a Celery worker lost comes back after its visibility
#: time-out, an hour by default.
_REMEMBERED_S = 86400


@dataclass
class Moved:
    """The counts of handed over, known and parked messages."""

    handed_over: int = 0
    duplicates: int = 0
    parked: int = 0

    @property
    def total(self) -> int:
        return self.handed_over + self.duplicates + self.parked


class Handover:
    """See the module.

    Parameters:
      settings: where dream's servers are.
      app: its tasks run beside dream's own; finalized.
      own: accepts the host's own tasks.
      broker: dream's.
      parking: keeps messages that the bridge does not understand.
      tells: whether to store a FAILURE for each parked task.
    """

    def __init__(
        self,
        settings: Settings,
        app: Celery,
        own: Acceptor,
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
        self._queues = {*host().queues, *queues_of(app)}

    def move(self, origin: Origin, taken: Sequence[Taken], moved: Moved) -> None:
        """Hand messages over, and let their origin forget them.

        Parameters:
          moved: gets the counts, even if an error follows.

        Raises:
          DreamError: a server is away; the remaining messages stay at their origin.
        """
        refused, tasks = self.sort(taken)
        own = [each for each in tasks if each[1].task in host().tasks]
        foreign = [each for each in tasks if each[1].task not in host().tasks]
        self._put(origin, foreign, moved)
        self._accept(origin, own, refused, moved)
        self._park(origin, refused, moved)

    def sort(self, taken: Iterable[Taken]) -> tuple[list[tuple[Taken, str]], list[tuple[Taken, Envelope]]]:
        """Sort messages into those that the bridge does not understand, each with the reason, and the others."""
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
        if not isinstance(task, str) or (task not in host().tasks and task not in self._app.tasks):
            if str(task).startswith("celery."):
                raise Refused(f"{what} {task!r:.200} is a work flow or a task of Celery's own, which is not supported")
            raise Refused(f"no worker knows {what} {task!r:.200}: name its app with --app")

    def revoke(self, revocation: Revocation) -> None:
        """Tell dream's workers of a revocation, even if the bridge has not moved its tasks.

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
        # A source that could not forget them gives them once more, and they are counted then.
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
        """The message, on the queue that it names, or on the default queue if workers take nothing from that."""
        queue = envelope.queue if envelope.queue in self._queues else str(self._app.conf.task_default_queue)
        message = envelope.to_message(self._settings.queue_prefix)
        assert DELIVERY_ID in message.options  # noqa: S101 (what makes it one delivery)
        return message.copy(queue_name=self._settings.queue_prefix + queue)

    # --- dream's own tasks

    def _accept(self, origin: Origin, tasks: Tasks, refused: list[tuple[Taken, str]], moved: Moved) -> None:
        if not tasks:
            return
        outcomes = self._own.accept(self._with_revoked([envelope for _, envelope in tasks]))
        by_taken = [(taken, outcome) for (taken, _), outcome in zip(tasks, outcomes, strict=True)]
        refused.extend((taken, f"it was not accepted: {each}") for taken, each in by_taken if isinstance(each, str))
        done = [(taken, is_new) for taken, is_new in by_taken if isinstance(is_new, bool)]
        new = sum(is_new for _, is_new in done)
        moved.handed_over += new
        origin.done([taken for taken, _ in done])
        moved.duplicates += len(done) - new
        if trouble := next((each for _, each in by_taken if isinstance(each, Exception)), None):
            self._park(origin, refused, moved)
            raise trouble

    def _with_revoked(self, tasks: Sequence[Envelope]) -> list[Envelope]:
        """The same tasks, but a task that was revoked before it had a row expires at once."""
        revoked, at = revoked_among(self._settings, [each.id for each in tasks]), datetime.now(UTC).isoformat()
        return [replace(each, expires=at) if each.id in revoked else each for each in tasks]

    # --- messages that the bridge does not understand

    def park(self, refused: Sequence[tuple[Taken, str]]) -> None:
        """Park messages, and store a FAILURE for their tasks.

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
