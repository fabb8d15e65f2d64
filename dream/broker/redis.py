"""Dramatiq's Redis broker, mended where it loses messages (docs/architecture.md, "Dramatiq, mended").

- A message that names its delivery (`<task>:<attempt>`) is put on a queue only once, and the newest of a series is not
  put there again even when it has been worked on.
- Whatever this worker fetched but no thread holds is put back when a consumer (re)connects.
- What cannot be decoded goes to the dead letters and wedges nobody.
- Heartbeats carry the time of Redis, so a worker's wrong clock kills no worker.
- A message moves to its queue, and back among the delayed ones, in one step.
- What a dead worker had in work goes before all that waits, not behind it, and is known again as `suspects`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dramatiq import Consumer, Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker as StockRedisBroker
from dramatiq.common import current_millis, dq_name, q_name, xq_name
from redis.exceptions import OutOfMemoryError

from dream.broker.addressed import id_of
from dream.broker.dispatch import dispatch_script, is_suspect
from dream.broker.redis_consumer import HANDED_BACK, RedisConsumer, is_whole, outages
from dream.log import get_logger
from dream.messages import DELIVERY_ID, REDELIVERED, SERIES
from dream.redis_script import RedisScript

__all__ = ["RedisBroker"]

log = get_logger(__name__)

#: Ids in one question to Redis: long enough to be quick, short enough not to block it.
_ASK_AT_ONCE = 500
#: How often a worker looks for messages of dead ones.
_LOOK_EVERY_S = 1.0


class RedisBroker(StockRedisBroker):
    """See the module. Its constructor is the stock one."""

    #: Whether it knows for sure what it holds (`missing`, `enqueue_missing`).
    can_be_asked = True

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.scripts["dispatch"] = self.client.register_script(dispatch_script())
        self._enqueue_once = self._script("enqueue_once")
        self._reclaim = self._script("reclaim")
        self._bury = self._script("bury")
        self._hand_over = self._script("hand_over")
        self._missing = self._script("missing")
        self._ack_and_fetch = self._script("ack_and_fetch")
        self._discard = self._script("discard")
        self._hand_back = self._script("hand_back")
        self._held: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._holding = threading.Lock()
        self._done: defaultdict[str, list[str]] = defaultdict(list)
        self._looked_at: defaultdict[str, float] = defaultdict(float)
        #: Ids of messages that this worker has, and that one had which died.
        self.suspects: set[str] = set()

    def _script(self, name: str) -> RedisScript:
        return RedisScript(self.client, Path(__file__).with_name(f"{name}.lua"))

    @property
    def consumer_class(self) -> type[Consumer]:
        return RedisConsumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Put the message on its queue; one that names its delivery is not put there twice.

        Parameters:
          delay: milliseconds.

        Raises:
          ConnectionClosed
        """
        if DELIVERY_ID not in message.options:
            with outages():
                return super().enqueue(message, delay=delay)
        message = self._addressed(message, delay)
        self.emit_before("enqueue", message, delay)
        with outages():
            self._put(message, [message.queue_name])
        self.emit_after("enqueue", message, delay)
        return message

    def close(self) -> None:
        """Close the connections, which stock leaves to the end of the process."""
        self.client.close()

    def enqueue_missing(self, message: Message[Any]) -> bool:
        """Put the message on its queue unless the broker holds that delivery anywhere; says whether it did."""
        message = self._addressed(message, None)
        return self._put(message, [message.queue_name, dq_name(message.queue_name)])

    def missing(self, queue_name: str, delivery_ids: Sequence[str]) -> set[str]:
        """Those of the deliveries that the broker holds nowhere: not waiting, not delayed, not in work."""
        queues = [queue_name, dq_name(queue_name)]
        missing: set[str] = set()
        for start in range(0, len(delivery_ids), _ASK_AT_ONCE):
            batch = delivery_ids[start : start + _ASK_AT_ONCE]
            found = self._missing(keys=[self.namespace], args=[len(queues), *queues, *batch])
            missing.update(each.decode() for each in found)
        return missing

    def doubted(self, queue_name: str, count: int) -> int:  # noqa: ARG002 (RabbitMQ's)
        """How many of `count` tasks that may have been lost to ask for: all."""
        return count

    def discard(self, queue_name: str) -> int:
        """Throw away what waits on a queue, delayed or not, but not what is in work; returns how many messages."""
        names = (queue_name, dq_name(queue_name))
        return sum(self._discard(keys=[self.namespace], args=[name]) for name in names)

    def hand_over(
        self, deliveries: Sequence[tuple[str, Message[Any], int | None]], in_flight: str, *, remembered_s: int
    ) -> list[int]:
        """Put messages on their queues, each delivery once, and forget where they were taken from, in one step.

        Parameters:
          deliveries: of each its tag in flight, the message, and its delay in milliseconds.
          in_flight: the hash of this Redis that has the tags; "" where they are elsewhere.
          remembered_s: how long a delivery is known again, though it has run.

        Returns:
          Of each 1 where it was put there, 0 where it was there before, -1 where somebody else has done it.
        """
        arguments: list[Any] = [remembered_s]
        for tag, message, delay in deliveries:
            message = self._addressed(message, delay)
            arguments += [tag, message.options["redis_message_id"], message.queue_name, message.encode()]
        outcome: list[int] = self._hand_over(keys=[self.namespace, in_flight], args=arguments)
        return outcome

    def _addressed(self, message: Message[Any], delay: int | None) -> Message[Any]:
        options = {"redis_message_id": message.options[DELIVERY_ID]}
        if delay is None:
            return message.copy(options=options)
        return message.copy(
            queue_name=dq_name(message.queue_name), options={**options, "eta": current_millis() + delay}
        )

    def _put(self, message: Message[Any], unless_on: list[str]) -> bool:
        queue = message.queue_name
        other = q_name(queue) if queue != q_name(queue) else dq_name(queue)
        of_message = [queue, message.options["redis_message_id"], message.encode()]
        keys = [self.namespace]
        if SERIES in message.options:
            keys.append(f"{self.namespace}:{queue}.series:{message.options[SERIES]}")
        return bool(self._enqueue_once(keys=keys, args=[*of_message, self.broker_id, other, *unless_on]))

    def hand_back(self, message: MessageProxy, *, is_stopping: bool = False) -> None:  # noqa: ARG002 (RabbitMQ's)
        """Put a message that is in work back on its queue, in place of the ack that follows.

        Not at once: this worker could fetch it again before that ack, which would then remove it.
        """
        message.options[HANDED_BACK] = True

    def ack_and_fetch(self, queue_name: str, prefetch: int, *, only_if_done: bool = False) -> list[bytes]:
        """Ack what is done and take up to `prefetch` messages, which are this worker's until it acks them.

        For the thread of the queue's consumer.

        Parameters:
          only_if_done: do nothing where there is nothing to ack.
        """
        count = len(self._done[queue_name])
        if only_if_done and not count:
            return []
        self._look_after_the_dead(queue_name)
        arguments: list[Any] = [self.broker_id, queue_name, prefetch, *self._done[queue_name][:count]]
        fetched: list[bytes] = self._ack_and_fetch(keys=[self.namespace], args=arguments)
        del self._done[queue_name][:count]
        for data in fetched:
            if is_suspect(data):
                self.suspects.add(id_of(data))
        return fetched

    def _look_after_the_dead(self, queue_name: str) -> None:
        """Once in a while, let stock's script put back what dead workers had."""
        now = time.monotonic()
        if now >= self._looked_at[queue_name] + _LOOK_EVERY_S:
            self._looked_at[queue_name] = now
            self.do_fetch(queue_name, 0)

    def wait_for_messages(self, queue_name: str, timeout_s: float) -> None:
        """Wait until the queue has a message, which stays there."""
        key = f"{self.namespace}:{queue_name}"
        try:
            self.client.execute_command("BLMOVE", key, key, "LEFT", "LEFT", timeout_s)
        except OutOfMemoryError:  # as it says of what may need memory
            time.sleep(timeout_s)

    def note_done(self, queue_name: str, message: MessageProxy) -> None:
        """The message is acked with the next `ack_and_fetch`."""
        self._done[queue_name].append(message.options["redis_message_id"])

    def put_back(self, queue_name: str, message: MessageProxy) -> None:
        """Put a message that this worker has back on its queue; it says from now on that it was in work."""
        again = message.copy(options={REDELIVERED: True})
        again.options.pop(HANDED_BACK, None)
        message_id = message.options["redis_message_id"]
        self._hand_back(keys=[self.namespace], args=[self.broker_id, queue_name, message_id, again.encode()])

    def hold(self, queue_name: str, message: MessageProxy) -> None:
        """A thread of this process has the message now, perhaps before another has let go of it that handed it back."""
        with self._holding:
            self._held[queue_name][message.options["redis_message_id"]] += 1

    def let_go(self, queue_name: str, message: MessageProxy) -> None:
        """No thread of this process has the message any more."""
        held, message_id = self._held[queue_name], message.options["redis_message_id"]
        with self._holding:
            held[message_id] -= 1
            if held[message_id] <= 0:
                del held[message_id]
        self.suspects.discard(message.message_id)

    def reclaim(self, queue_name: str) -> None:
        """Put back what was fetched from the queue and is held by no thread."""
        # In this order: what is held may be done a moment later.
        with self._holding:
            if queue_name != q_name(queue_name):  # of what is delayed, a consumer that begins or ends has nothing
                self._held[queue_name].clear()
            held = list(self._held[queue_name])
        held += self._done[queue_name]
        reclaimed = self._reclaim(keys=[self.namespace], args=[self.broker_id, queue_name, *held])
        if reclaimed:
            log.info("messages_reclaimed", queue=queue_name, count=reclaimed)

    def bury_malformed(self, queue_name: str) -> None:
        """Move what this worker fetched from the queue and could not work on to the dead letters."""
        queue = f"{self.namespace}:{queue_name}"
        fetched: Any = self.client.smembers(f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}")
        for message_id in fetched:
            data: Any = self.client.hget(f"{queue}.msgs", message_id)
            if data is not None and not is_whole(data, queue_name):
                self.bury(queue_name, data, "it is no message of this queue")

    def bury(self, queue_name: str, data: bytes, reason: str) -> None:
        """Move bytes that are no message to the dead letters."""
        dead_letters = xq_name(q_name(queue_name))
        buried = self._bury(keys=[self.namespace], args=[self.broker_id, queue_name, dead_letters, data])
        log.error("message_undecodable", queue=queue_name, reason=reason, buried_as=buried)
