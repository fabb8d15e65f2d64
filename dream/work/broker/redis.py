"""Dramatiq's Redis broker, mended where it loses messages (docs/architecture.md, "Dramatiq, mended").

- A message that names its delivery (`<task>:<attempt>`) is enqueued once. The newest message of a series is not
  enqueued again, even after its run.
- A consumer that (re)connects requeues orphans: messages that this worker fetched and no thread has in work.
- A message that cannot be decoded goes to the dead letters, and blocks no queue.
- A heartbeat carries the time of Redis, so that a worker whose clock is wrong is not taken for dead.
- A message moves from its delay queue to its queue, and back, in one step.
- The messages of a dead worker go first in their turn, and are known as `suspects`.
- Messages are taken by priority, and within one priority by turns among groups (`turns.lua`).

    thread ─ ack ─► to acknowledge ─┐                      ┌─► threads
    thread ─ ack ─► to acknowledge ─┴─► one question ──────┴─► threads
                                        (`ack_and_fetch.lua`)

While the consumer's thread polls, a thread that has run a message leaves the message's id there and goes on. While the
consumer's thread waits for messages, the ack is sent at once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from dramatiq import Consumer, Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker as StockRedisBroker
from dramatiq.brokers.redis import _RedisConsumer as StockConsumer
from dramatiq.common import compute_backoff, current_millis, dq_name, q_name, xq_name
from dramatiq.errors import ConnectionClosed, DecodeError
from redis.exceptions import OutOfMemoryError

from dream.fault_points import step
from dream.log import get_logger
from dream.work.broker.depth import Depth
from dream.work.broker.fetched import check_addressed, id_of
from dream.work.messages import DELIVERY_ID, REDELIVERED, SERIES, group_of
from dream.work.notify import Pulse
from dream.work.redis_client import RedisScript

__all__ = ["RedisBroker"]

log = get_logger(__name__)

#: The number of ids in one call to Redis: enough to be quick, few enough not to block it.
_ASK_AT_ONCE = 500
#: Seconds between two looks for messages of dead workers.
_LOOK_EVERY_S = 1.0
#: `dispatch.lua` puts it before the JSON of a message whose worker died. JSON ignores it.
_SUSPECT = b" "
#: An option in this process only: the message is requeued instead of acknowledged.
_REQUEUE = "requeue"
#: Seconds to wait for more messages to acknowledge or to fetch, before one call for all.
_GATHER_S = 0.002
#: Seconds until the next look at messages that wait for a thread: one of another group may have arrived.
_LOOK_AGAIN_S = 0.02
#: The longest wait for a free thread. A thread that gets free ends the wait; a worker that stops does not.
_LONGEST_BUSY_S = 0.25
#: The number of free places of a worker that limits no group.
_UNLIMITED = 65_535
#: Seconds to wait for a message; well below the time-out of the client's sockets.
_LONGEST_WAIT_MS = 2000
#: Seconds for which a stopping worker tries its last acks: perhaps only some of its connections are lost.
_LAST_WORD_S = 1.0


class RedisBroker(StockRedisBroker):
    """See the module. Its constructor is the stock one."""

    #: The name in traces.
    system = "redis"
    #: Whether `missing` and `enqueue_missing` know what the broker has.
    can_be_asked = True

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        dispatch = b"".join(_path_of(name).read_bytes() for name in ("turns", "dispatch"))
        self.scripts["dispatch"] = self.client.register_script(dispatch)
        self._enqueue_once = self._script("enqueue_once")
        self._requeue_orphans = self._script("requeue_orphans")
        self._dead_letter = self._script("dead_letter")
        self._hand_over = self._script("hand_over")
        self._missing = self._script("missing")
        self._ack_and_fetch = self._script("turns", "ack_and_fetch")
        self._discard = self._script("turns", "discard")
        self._requeue = self._script("requeue")
        self._in_work: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._in_work_lock = threading.Lock()
        self._to_acknowledge: defaultdict[str, list[str]] = defaultdict(list)
        self._looked_at: defaultdict[str, float] = defaultdict(float)
        #: The group of each message in work that has one, by queue and id.
        self._groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
        #: The threads of this process's worker; the last free one is for a group that has none.
        self._threads: int | None = None
        #: Ids of messages in work here that a worker had when it died.
        self.suspects: set[str] = set()
        #: The loops of the consumers' threads, by queue.
        self.pulse = Pulse()

    def _script(self, *names: str) -> RedisScript:
        return RedisScript(self.client, *map(_path_of, names))

    @property
    def consumer_class(self) -> type[Consumer]:
        return _Consumer

    def close(self) -> None:
        """Close the connections; stock keeps them until the process ends."""
        self.client.close()

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """See `Broker.emit_before`. The broker learns from the signal how many threads its worker has."""
        if signal == "worker_boot":
            self._threads = args[0].worker_threads
        super().emit_before(signal, *args, **kwargs)

    # --- senders

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Put the message on its queue; a message that names its delivery is put there once.

        Parameters:
          delay: milliseconds.

        Raises:
          ConnectionClosed
        """
        if DELIVERY_ID not in message.options:
            with _outages():
                return super().enqueue(message, delay=delay)
        message = _addressed(message, delay)
        self.emit_before("enqueue", message, delay)
        with _outages():
            self._put(message, [message.queue_name])
        self.emit_after("enqueue", message, delay)
        return message

    def enqueue_missing(self, message: Message[Any]) -> bool:
        """Put the message on its queue unless the broker has that delivery; returns whether it did."""
        message = _addressed(message, None)
        return self._put(message, [message.queue_name, dq_name(message.queue_name)])

    def missing(self, queue_name: str, delivery_ids: Sequence[str]) -> set[str]:
        """The deliveries that the broker does not have: neither waiting nor delayed nor in work."""
        queues = [queue_name, dq_name(queue_name)]
        missing: set[str] = set()
        for start in range(0, len(delivery_ids), _ASK_AT_ONCE):
            batch = delivery_ids[start : start + _ASK_AT_ONCE]
            found = self._missing(keys=[self.namespace], args=[len(queues), *queues, *batch])
            missing.update(each.decode() for each in found)
        return missing

    def doubted(self, queue_name: str, count: int) -> int:  # noqa: ARG002 (RabbitMQ's)
        """The number of tasks to ask for, of `count` that may be lost. Redis can be asked for all."""
        return count

    def discard(self, queue_name: str) -> int:
        """Delete the messages that wait on a queue, delayed or not, but none in work; returns their number."""
        names = (queue_name, dq_name(queue_name))
        return sum(self._discard(keys=[self.namespace], args=[name]) for name in names)

    def depth(self, queue_name: str) -> Depth:
        """Count the messages of a queue; see `Depth`."""
        queues = [queue_name, dq_name(queue_name)]
        workers: Any = self.client.zrange(f"{self.namespace}:__heartbeats__", 0, -1)
        with self.client.pipeline(transaction=False) as batch:
            for queue in queues:
                batch.hlen(f"{self.namespace}:{queue}.msgs")
            for worker in workers:
                batch.scard(f"{self.namespace}:__acks__.{worker.decode()}.{queue_name}")
            unacknowledged, delayed, *in_work = batch.execute()
        return Depth(max(0, unacknowledged - sum(in_work)), delayed)

    def hand_over(
        self, deliveries: Sequence[tuple[str, Message[Any], int | None]], in_flight: str, *, remembered_s: int
    ) -> list[int]:
        """Put messages on their queues, each delivery once, and remove them from their source, in one step.

        Parameters:
          deliveries: for each its tag in flight, the message, and its delay in milliseconds.
          in_flight: the hash in this Redis that contains the tags; "" if they are elsewhere.
          remembered_s: seconds for which a delivery is recognised, even after its run.

        Returns:
          For each 1 if it was put on its queue, 0 if it was put there before, -1 if another process handed it over.
        """
        arguments: list[Any] = [remembered_s]
        for tag, message, delay in deliveries:
            message = _addressed(message, delay)
            arguments += [tag, message.options["redis_message_id"], message.queue_name, message.encode()]
        outcome: list[int] = self._hand_over(keys=[self.namespace, in_flight], args=arguments)
        return outcome

    def _put(self, message: Message[Any], unless_on: list[str]) -> bool:
        queue = message.queue_name
        other = q_name(queue) if queue != q_name(queue) else dq_name(queue)
        of_message = [queue, message.options["redis_message_id"], message.encode()]
        keys = [self.namespace]
        if SERIES in message.options:
            keys.append(f"{self.namespace}:{queue}.series:{message.options[SERIES]}")
        return bool(self._enqueue_once(keys=keys, args=[*of_message, self.broker_id, other, *unless_on]))

    # --- runs

    def requeue(self, message: MessageProxy, *, is_stopping: bool = False) -> None:  # noqa: ARG002 (RabbitMQ's)
        """Requeue a message that is in work, in place of the ack that follows.

        The ack does it later: at once, this worker could fetch the message again, and the ack would then remove it.
        """
        message.options[_REQUEUE] = True

    # --- consumers

    def ack_and_fetch(
        self, queue_name: str, prefetch: int, *, only_to_acknowledge: bool = False
    ) -> tuple[list[bytes], bool]:
        """Acknowledge messages and fetch up to `prefetch` others, which are this worker's until it acknowledges them.

        For the thread of the queue's consumer.

        Parameters:
          only_to_acknowledge: do nothing if there is nothing to acknowledge.

        Returns:
          The fetched messages, and whether others wait until a thread is free for their group.
        """
        count = len(self._to_acknowledge[queue_name])
        if only_to_acknowledge and not count:
            return [], False
        self._requeue_of_dead_workers(queue_name)
        places, groups = self._places(queue_name)
        of_groups: list[Any] = [places, len(groups), *groups]
        arguments = [self.broker_id, queue_name, prefetch, *of_groups, *self._to_acknowledge[queue_name][:count]]
        others_wait, *fetched = self._ack_and_fetch(keys=[self.namespace], args=arguments)
        del self._to_acknowledge[queue_name][:count]
        self.suspects.update(id_of(data) for data in fetched if data.startswith(_SUSPECT))
        return fetched, bool(others_wait)

    def _places(self, queue_name: str) -> tuple[int, set[str]]:
        """The number of threads that are free for messages of groups, and the groups that have a thread."""
        with self._in_work_lock:
            groups = list(self._groups[queue_name].values())
        return _UNLIMITED if self._threads is None else max(0, self._threads - len(groups)), set(groups)

    def has_free_thread(self, queue_name: str) -> bool:
        """Whether a thread is free for a message of a group."""
        return self._places(queue_name)[0] > 0

    def _requeue_of_dead_workers(self, queue_name: str) -> None:
        """Once a second, let the maintenance of `dispatch.lua` requeue the messages of dead workers."""
        now = time.monotonic()
        if now >= self._looked_at[queue_name] + _LOOK_EVERY_S:
            self._looked_at[queue_name] = now
            self.do_fetch(queue_name, 0)

    def wait_for_messages(self, queue_name: str, timeout_s: float) -> None:
        """Wait until the queue has a message; fetch none."""
        key = f"{self.namespace}:{queue_name}"
        try:
            self.client.execute_command("BLMOVE", key, key, "LEFT", "LEFT", timeout_s)
        except OutOfMemoryError:  # Redis refuses every command that may need memory
            time.sleep(timeout_s)

    def acknowledge_later(self, queue_name: str, message: MessageProxy) -> None:
        """Acknowledge the message with the next `ack_and_fetch`."""
        self._to_acknowledge[queue_name].append(message.options["redis_message_id"])

    def requeue_now(self, queue_name: str, message: MessageProxy) -> None:
        """Requeue a message of this worker, marked as one that was in work."""
        again = message.copy(options={REDELIVERED: True})
        again.options.pop(_REQUEUE, None)
        message_id = message.options["redis_message_id"]
        self._requeue(keys=[self.namespace], args=[self.broker_id, queue_name, message_id, again.encode()])

    def add_in_work(self, queue_name: str, message: MessageProxy) -> None:
        """A thread has the message in work, perhaps before the thread that requeued it has removed it."""
        with self._in_work_lock:
            message_id = message.options["redis_message_id"]
            self._in_work[queue_name][message_id] += 1
            if group := group_of(message.options):
                self._groups[queue_name][message_id] = group

    def remove_in_work(self, queue_name: str, message: MessageProxy) -> None:
        """A thread no longer has the message in work."""
        in_work, message_id = self._in_work[queue_name], message.options["redis_message_id"]
        with self._in_work_lock:
            in_work[message_id] -= 1
            if in_work[message_id] <= 0:
                del in_work[message_id]
                self._groups[queue_name].pop(message_id, None)
        self.suspects.discard(message.message_id)

    def requeue_orphans(self, queue_name: str) -> None:
        """Requeue the messages that were fetched from the queue and that no thread has in work."""
        # In this order, because a message may move from work to the acks meanwhile.
        with self._in_work_lock:
            if queue_name != q_name(queue_name):  # a starting or stopping consumer holds no delayed messages
                self._in_work[queue_name].clear()
                self._groups[queue_name].clear()
            in_work = list(self._in_work[queue_name])
        in_work += self._to_acknowledge[queue_name]
        count = self._requeue_orphans(keys=[self.namespace], args=[self.broker_id, queue_name, *in_work])
        if count:
            log.info("orphans_requeued", queue=queue_name, count=count)

    def dead_letter_malformed(self, queue_name: str) -> None:
        """Dead-letter the messages that this worker fetched from the queue and cannot run."""
        queue = f"{self.namespace}:{queue_name}"
        fetched: Any = self.client.smembers(f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}")
        for message_id in fetched:
            data: Any = self.client.hget(f"{queue}.msgs", message_id)
            if data is not None and not _is_whole(data, queue_name):
                self.dead_letter(queue_name, data, "it is no message of this queue")

    def dead_letter(self, queue_name: str, data: bytes, reason: str) -> None:
        """Move bytes that are no message to the dead letters."""
        dead_letters = xq_name(q_name(queue_name))
        key = self._dead_letter(keys=[self.namespace], args=[self.broker_id, queue_name, dead_letters, data])
        log.error("message_undecodable", queue=queue_name, reason=reason, key=key)


class _Consumer(StockConsumer):
    """Takes the messages of one queue. One thread asks it for messages; the threads that run them acknowledge."""

    broker: RedisBroker

    def __init__(self, broker: RedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        broker.pulse.moved(queue_name)
        #: The number of messages to acknowledge that justifies a call to Redis.
        self._batch = max(1, prefetch // 2)
        self._changed = threading.Condition()
        self._thread_id = threading.get_ident()
        #: Whether the consumer's thread will send acks before it waits for anything outside this process.
        self._polls = False
        #: Whether the last fetch has emptied the queue.
        self._is_drained = False
        #: Whether messages wait until a thread is free for their group.
        self._others_wait = False
        with _outages():
            broker.ack_and_fetch(queue_name, 0)  # acks that the previous consumer could not send
            broker.requeue_orphans(queue_name)

    # --- its own thread

    def __next__(self) -> MessageProxy | None:
        self.broker.pulse.moved(self.queue_name)
        message: MessageProxy | None = None
        with _outages():
            try:
                if self.message_cache or self._ask():
                    message = super().__next__()
                if message is not None:
                    _check(message, self.queue_name)
                    self.broker.add_in_work(self.queue_name, message)
            except DecodeError as error:
                self.broker.dead_letter(self.queue_name, error.data, str(error.error))
                return None
            except TypeError:
                if message is not None:
                    self.queued_message_ids.discard(message.message_id)
                self.broker.dead_letter_malformed(self.queue_name)
                return None
        return message

    def _ask(self) -> bool:
        """Fetch messages; if there are none, wait for some. Returns whether it fetched any."""
        self._polls = True
        try:
            room = self._wait_for_room()
            self.message_cache, self._others_wait = self.broker.ack_and_fetch(self.queue_name, room)
        except BaseException:
            self._polls = False
            raise
        self._is_drained = 0 < len(self.message_cache) < room
        if not self.message_cache and self._others_wait:
            self._wait_for_thread()
        elif not self.message_cache:
            self._stop_polling()
            if room:
                self._wait_for_messages()
        return bool(self.message_cache)

    def _wait_for_room(self) -> int:
        """The number of messages to fetch. While other messages are in work, one call fetches several."""
        with self._changed:
            self._changed.wait_for(lambda: self._room > 0, self.timeout / 1000)
            if self._is_drained or self._room < self._batch:
                self._changed.wait(_GATHER_S)
            return self._room

    def _wait_for_thread(self) -> None:
        """Wait until a thread is free; if one is, wait for a message of a group that has no thread."""
        with self._changed:
            if self.broker.has_free_thread(self.queue_name):
                self._changed.wait(_LOOK_AGAIN_S)
            else:
                self._changed.wait_for(lambda: self.broker.has_free_thread(self.queue_name), _LONGEST_BUSY_S)

    def _wait_for_messages(self) -> None:
        # Stock's pauses have random lengths, so that each waiting worker is the first at some time.
        self.misses, pause_ms = compute_backoff(self.misses, max_backoff=min(self.timeout, _LONGEST_WAIT_MS))
        if self.queue_name != q_name(self.queue_name):  # prefetched delayed messages may be due before others come
            time.sleep(pause_ms / 1000)
        else:
            self.broker.wait_for_messages(self.queue_name, pause_ms / 1000)

    def _stop_polling(self) -> None:
        """From here on each thread sends its acks itself."""
        with self._changed:
            self._polls = False
        self.broker.ack_and_fetch(self.queue_name, 0, only_to_acknowledge=True)

    @property
    def _room(self) -> int:
        return max(0, int(self.prefetch - self.outstanding_message_count))

    def close(self) -> None:
        """Send the last acks, and requeue the fetched messages that no thread has in work."""
        self.message_cache = []
        give_up = time.monotonic() + _LAST_WORD_S
        with _outages():
            while True:
                try:
                    self._stop_polling()
                    self.broker.requeue_orphans(self.queue_name)
                except redis.ConnectionError:
                    if time.monotonic() >= give_up:
                        raise
                    time.sleep(_LAST_WORD_S / 10)
                else:
                    return

    # --- threads that have run a message

    @step("ack")
    def ack(self, message: MessageProxy) -> None:
        if threading.get_ident() == self._thread_id:
            self.broker.pulse.moved(self.queue_name)
        # Stock would give up at some errors and leave the message in this worker's ack set until it exits.
        if message.options.get(_REQUEUE):
            with _outages():
                self.queued_message_ids.discard(message.message_id)  # before it is fetched again
                self.broker.requeue_now(self.queue_name, message)
        elif not self._leave_ack(message):
            with _outages():
                super().ack(message)
        self._end(message)

    def _end(self, message: MessageProxy) -> None:
        """Note that the message's thread is free, and wake the consumer that waits for one."""
        self.broker.remove_in_work(self.queue_name, message)
        if self._others_wait:
            with self._changed:
                self._changed.notify()

    def _leave_ack(self, message: MessageProxy) -> bool:
        """Leave the ack to the consumer's thread; False if it does not poll."""
        with self._changed:
            if not self._polls or threading.get_ident() == self._thread_id:
                return False
            self.broker.acknowledge_later(self.queue_name, message)
            self.queued_message_ids.discard(message.message_id)
            if self._room in (1, self._batch):
                self._changed.notify()
        return True

    def nack(self, message: MessageProxy) -> None:
        with _outages():
            super().nack(message)
        self._end(message)

    def requeue(self, messages: Any) -> None:
        messages = list(messages)
        with _outages():
            super().requeue(messages)
        for message in messages:
            self._end(message)


def _path_of(script: str) -> Path:
    return Path(__file__).with_name(f"{script}.lua")


@contextmanager
def _outages() -> Iterator[None]:
    """Turn every error of Redis into an outage: its memory is full, it loads its file, or it is a replica now.

    Raises:
      ConnectionClosed: the only error after which Dramatiq's consumers start again.
    """
    try:
        yield
    except redis.RedisError as error:
        raise ConnectionClosed(error) from None


def _addressed(message: Message[Any], delay: int | None) -> Message[Any]:
    """The message under the name of its delivery, on its queue or, after a delay in milliseconds, its delay queue."""
    options = {"redis_message_id": message.options[DELIVERY_ID]}
    if delay is None:
        return message.copy(options=options)
    return message.copy(queue_name=dq_name(message.queue_name), options={**options, "eta": current_millis() + delay})


def _check(message: Message[Any] | MessageProxy, queue_name: str) -> None:
    """Check that a thread can run the message and acknowledge it.

    Raises:
      TypeError: it cannot.
    """
    check_addressed(message, queue_name)
    if not isinstance(message.options.get("redis_message_id"), str):
        raise TypeError("a message without the id by which it is acknowledged")


def _is_whole(data: bytes, queue_name: str) -> bool:
    """Whether these bytes are a message that a thread can run."""
    try:
        _check(Message.decode(data), queue_name)
    except (DecodeError, TypeError):
        return False
    return True
