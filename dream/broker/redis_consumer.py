"""How a worker takes messages from a queue in Redis, and says that they are done.

    thread ─ ack ─► done ─┐                      ┌─► threads
    thread ─ ack ─► done ─┴─► one question ──────┴─► threads
                              (`ack_and_fetch.lua`)

While the consumer's thread goes round, whoever has run a message leaves its id there and goes on. Where it only waits,
because nothing else is to be had, the ack is sent at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import Message, MessageProxy
from dramatiq.brokers.redis import _RedisConsumer as StockConsumer
from dramatiq.common import compute_backoff, q_name
from dramatiq.errors import ConnectionClosed, DecodeError

from dream.broker.addressed import check_addressed
from dream.fault_points import step

if TYPE_CHECKING:
    from dream.broker.redis import RedisBroker

__all__ = ["HANDED_BACK", "RedisConsumer", "is_whole", "outages"]

#: The option that says, in this process only, that the message goes back on its queue instead of being acked.
HANDED_BACK = "handed_back"
#: So long messages may gather, done or to come, where there are few.
_GATHER_S = 0.002
#: Well below the time-out of the client's sockets.
_LONGEST_WAIT_MS = 2000
#: A worker that stops asks no more. What is lost may be some connections only, so its last word is tried for so long.
_LAST_WORD_S = 1.0


@contextmanager
def outages() -> Iterator[None]:
    """Whatever Redis says instead of an answer is an outage, and over some time: its memory is full, it loads its file,
    it is a replica for a moment.

    Raises:
      ConnectionClosed: which makes Dramatiq's consumers begin anew, as any other error would not.
    """
    try:
        yield
    except redis.RedisError as error:
        raise ConnectionClosed(error) from None


def _check(message: Message[Any] | MessageProxy, queue_name: str) -> None:
    """Check that the message can be worked on, and acked.

    Raises:
      TypeError: it cannot.
    """
    check_addressed(message, queue_name)
    if not isinstance(message.options.get("redis_message_id"), str):
        raise TypeError("a message without the id by which it is acked")


def is_whole(data: bytes, queue_name: str) -> bool:
    """Whether bytes that were fetched can be worked on."""
    try:
        _check(Message.decode(data), queue_name)
    except (DecodeError, TypeError):
        return False
    return True


class RedisConsumer(StockConsumer):
    """See the module. Its thread is the one that asks it for messages."""

    broker: RedisBroker

    def __init__(self, broker: RedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        #: Messages of which so many are done are worth a question.
        self._batch = max(1, prefetch // 2)
        self._changed = threading.Condition()
        self._thread_id = threading.get_ident()
        #: Whether its thread comes by before it waits for anything but this process.
        self._goes_round = False
        #: Whether it has taken all that there was.
        self._is_drained = False
        with outages():
            broker.ack_and_fetch(queue_name, 0)  # what a consumer before this one could not say
            broker.reclaim(queue_name)

    # --- its own thread

    def __next__(self) -> MessageProxy | None:
        message: MessageProxy | None = None
        with outages():
            try:
                if self.message_cache or self._ask():
                    message = super().__next__()
                if message is not None:
                    _check(message, self.queue_name)
                    self.broker.hold(self.queue_name, message)
            except DecodeError as error:
                self.broker.bury(self.queue_name, error.data, str(error.error))
                return None
            except TypeError:
                if message is not None:
                    self.queued_message_ids.discard(message.message_id)
                self.broker.bury_malformed(self.queue_name)
                return None
        return message

    def _ask(self) -> bool:
        """Fetch messages; where there are none, wait for some. Says whether there are."""
        self._goes_round = True
        try:
            room = self._wait_for_room()
            self.message_cache = self.broker.ack_and_fetch(self.queue_name, room)
        except BaseException:
            self._goes_round = False
            raise
        self._is_drained = 0 < len(self.message_cache) < room
        if not self.message_cache:
            self._stand_still()
            if room:
                self._wait_for_messages()
        return bool(self.message_cache)

    def _wait_for_room(self) -> int:
        """How many messages may be fetched. As long as others are in work, it is not asked for each."""
        with self._changed:
            self._changed.wait_for(lambda: self._room > 0, self.timeout / 1000)
            if self._is_drained or self._room < self._batch:
                self._changed.wait(_GATHER_S)
            return self._room

    def _wait_for_messages(self) -> None:
        # Stock's pauses, as they are of random lengths: those that wait in line take turns at being the first.
        self.misses, pause_ms = compute_backoff(self.misses, max_backoff=min(self.timeout, _LONGEST_WAIT_MS))
        if self.queue_name != q_name(self.queue_name):  # delayed ones that it has may be due before others come
            time.sleep(pause_ms / 1000)
        else:
            self.broker.wait_for_messages(self.queue_name, pause_ms / 1000)

    def _stand_still(self) -> None:
        """From here on whoever has run a message says so itself."""
        with self._changed:
            self._goes_round = False
        self.broker.ack_and_fetch(self.queue_name, 0, only_if_done=True)

    @property
    def _room(self) -> int:
        return max(0, int(self.prefetch - self.outstanding_message_count))

    def close(self) -> None:
        """Say what is done, and put back what was fetched and no thread has."""
        self.message_cache = []
        give_up = time.monotonic() + _LAST_WORD_S
        with outages():
            while True:
                try:
                    self._stand_still()
                    self.broker.reclaim(self.queue_name)
                except redis.ConnectionError:
                    if time.monotonic() >= give_up:
                        raise
                    time.sleep(_LAST_WORD_S / 10)
                else:
                    return

    # --- threads that have run a message

    @step("ack")
    def ack(self, message: MessageProxy) -> None:
        # Stock would give up at some errors and leave the message in this worker's ack set until it exits.
        if message.options.get(HANDED_BACK):
            with outages():
                self.queued_message_ids.discard(message.message_id)  # before it is fetched again
                self.broker.put_back(self.queue_name, message)
        elif not self._leave(message):
            with outages():
                super().ack(message)
        self.broker.let_go(self.queue_name, message)

    def _leave(self, message: MessageProxy) -> bool:
        """Leave word for the consumer's thread that the message is done; False where it does not come by."""
        with self._changed:
            if not self._goes_round or threading.get_ident() == self._thread_id:
                return False
            self.broker.note_done(self.queue_name, message)
            self.queued_message_ids.discard(message.message_id)
            if self._room in (1, self._batch):
                self._changed.notify()
        return True

    def nack(self, message: MessageProxy) -> None:
        with outages():
            super().nack(message)
        self.broker.let_go(self.queue_name, message)

    def requeue(self, messages: Any) -> None:
        messages = list(messages)
        with outages():
            super().requeue(messages)
        for message in messages:
            self.broker.let_go(self.queue_name, message)
