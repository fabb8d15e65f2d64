"""Answers to questions: a worker reports that it is there, what it runs, what waits in it and what it can run.

    question ─► channel ─► each worker ─► a list of answers, which expires

`dream.work.questions` has the formats, and asks. Other middleware may add commands. A worker does not answer questions
that are asked while Redis is away.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware
from redis.exceptions import RedisError

from dream.log import get_logger
from dream.version import __version__
from dream.work.questions import Answer, Question, answers_key, channel_of
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from redis import Redis

    from dream.work.settings import Settings

__all__ = ["Answering"]

log = get_logger(__name__)

_LISTEN_S = 0.5
_PAUSE_S = 1.0
#: A worker waits this long at its start for Redis to listen to questions; then it begins all the same.
_HEARS_WITHIN_S = 1.0
#: Seconds of silence after which the connection is tested.
_SILENCE_S = 15
_ANSWERS_LIVE_S = 60
#: Arguments that are longer, as JSON, are not shown.
_MOST_ARGUMENT_BYTES = 4096

Command = Callable[[Mapping[str, Any]], Any]


class Answering(Middleware):
    """See the module.

    Parameters:
      settings: where Redis is, and the prefix of queues.
      worker_name: the name in the worker's answers.
    """

    def __init__(self, settings: Settings, worker_name: str) -> None:
        self.worker_name = worker_name
        self.commands: dict[str, Command] = {
            "ping": lambda _: {"ok": "pong"},
            "active": lambda _: [self._in_work(message, began_at) for message, began_at in list(self._active.values())],
            "reserved": lambda _: [self._shown(message) for message in self._reserved()],
            "scheduled": lambda _: [self._scheduled(message) for message in self._delayed()],
            "registered": lambda _: sorted(self._worker().broker.actors),
            "active_queues": lambda _: [{"name": queue} for queue in sorted(self._queues())],
            "stats": lambda _: self._stats(),
        }
        self._settings = settings
        self._worker_or_none: Worker | None = None
        self._active: dict[str, tuple[MessageProxy, float]] = {}
        self._total: Counter[str] = Counter()
        self._total_lock = threading.Lock()
        self._began_at = time.monotonic()
        self._listens = threading.Event()
        self._stopped = threading.Event()
        #: An outage is logged once.
        self._hears = True

    # --- the worker's life and its runs

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._worker_or_none = worker
        threading.Thread(target=self._answer_all, name="answering", daemon=True).start()
        # As soon as the worker takes messages, it answers.
        self._listens.wait(_HEARS_WITHIN_S)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._stopped.set()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        self._active[message.message_id] = message, time.time()
        with self._total_lock:  # all of the worker's threads come here
            self._total[message.actor_name] += 1

    def after_process_message(self, broker: Broker, message: MessageProxy, **outcome: Any) -> None:  # noqa: ARG002
        self._active.pop(message.message_id, None)

    after_skip_message = after_process_message

    # --- questions

    def _answer_all(self) -> None:
        client = connect(
            self._settings.events_url,
            decode_responses=True,
            encoding_errors="replace",  # bytes that are no text must not end the thread
            health_check_interval=_SILENCE_S,
        )
        while not self._stopped.is_set():
            try:
                self._listen(client)
            except RedisError as error:
                if self._hears:
                    log.warning("questions_not_heard", error=str(error))
                self._hears = False
                self._stopped.wait(_PAUSE_S)
        client.close()

    def _listen(self, client: Redis) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(channel_of(self._settings.redis_prefix))
            self._hears = True
            while not self._stopped.is_set():
                message = channel.get_message(timeout=_LISTEN_S)  # the first one confirms the subscription
                self._listens.set()
                if message is not None:
                    self._answer(client, message["data"])

    def _answer(self, client: Redis, data: str) -> None:
        try:
            question = Question.decode(data)
            if not question.is_for(self.worker_name):
                return
            reply = self.commands[question.command](question.arguments or {})
            answer = Answer(self.worker_name, reply).encode()
        except BaseException as error:  # noqa: BLE001 (an edge: the next question is answered even after an exit in a command)
            log.warning("question_not_understood", question=data[:200], error=f"{type(error).__name__}: {error}")
            return
        key = answers_key(self._settings.redis_prefix, question.ticket)
        with client.pipeline() as both:
            both.rpush(key, answer)
            both.expire(key, _ANSWERS_LIVE_S)
            both.execute()

    # --- answers

    def _worker(self) -> Worker:
        if self._worker_or_none is None:
            raise RuntimeError("the worker has not started")
        return self._worker_or_none

    def _reserved(self) -> Iterable[MessageProxy]:
        return [item.message for item in list(self._worker().work_queue.queue)]

    def _delayed(self) -> Iterable[MessageProxy]:
        consumers = list(self._worker().consumers.values())
        return [item.message for consumer in consumers for item in list(consumer.delay_queue.queue)]

    def _queues(self) -> set[str]:
        return {self._without_prefix(queue) for queue in list(self._worker().consumers)}

    def _without_prefix(self, queue: str) -> str:
        return q_name(queue).removeprefix(self._settings.queue_prefix)

    def _shown(self, message: MessageProxy) -> dict[str, Any]:
        """A task in Celery's form."""
        return {
            "id": message.message_id,
            "name": message.actor_name,
            "type": message.actor_name,
            "args": _short(list(message.args)),
            "kwargs": _short(dict(message.kwargs)),
            "hostname": self.worker_name,
            "acknowledged": False,
            "delivery_info": {"routing_key": self._without_prefix(message.queue_name)},
            "worker_pid": os.getpid(),
        }

    def _in_work(self, message: MessageProxy, began_at: float) -> dict[str, Any]:
        return {**self._shown(message), "time_start": began_at}

    def _scheduled(self, message: MessageProxy) -> dict[str, Any]:
        eta = datetime.fromtimestamp(message.options.get("eta", 0) / 1000, UTC)
        return {"eta": eta.isoformat(), "request": self._shown(message)}

    def _stats(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "dream": __version__,
            # Askers leave out workers that do not know a later release's command: these would log it, and not answer.
            "commands": sorted(self.commands),
            "uptime": round(time.monotonic() - self._began_at),
            "total": dict(self._total),
            "pool": {"implementation": "threads", "max-concurrency": self._worker().worker_threads},
        }


def _short(arguments: Any) -> Any:
    size = len(json.dumps(arguments, default=repr))
    return arguments if size <= _MOST_ARGUMENT_BYTES else f"{size} bytes"
