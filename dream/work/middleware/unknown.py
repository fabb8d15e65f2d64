"""Unknown tasks: requeue a task for a worker that knows it, or fail it if there is none.

message of an unknown task ─► requeued with a delay ─► a worker that knows the task
                                  └─► DREAM_UNKNOWN_TASK_S later every worker is asked ─┬─► one takes it: requeued
                                                                                        └─► FAILURE, dead letters
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from dramatiq import Actor, Broker, Message, MessageProxy, Worker
from dramatiq.common import q_name
from dramatiq.middleware import CurrentMessage, Middleware, SkipMessage
from redis import RedisError

from dream.errors import ResultsUnavailable
from dream.log import get_logger
from dream.work.broker import BROKER_AWAY
from dream.work.messages import CELERY, SERIES, UNKNOWN_FOR_S
from dream.work.patience import patiently
from dream.work.questions import Question, TakesArguments, ask
from dream.work.results import FAILURE, meta_of

if TYPE_CHECKING:
    from dream.work.middleware.answering import Answering
    from dream.work.results import ResultStore
    from dream.work.settings import Settings

__all__ = ["Unknown"]

log = get_logger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 5.0
_ANSWER_S = 2.0
#: Seconds for which the workers' answer about a task counts.
_REMEMBERED_S = 5.0
_PAUSE_S = 1.0
_DAY_MS = 86_400_000


class _Actors(dict[str, Actor[..., Any]]):
    """Actors by name; every other name gets the actor of unknown tasks, which is not among the values."""

    def __init__(self, known: Mapping[str, Actor[..., Any]], unknown: Actor[..., Any]) -> None:
        super().__init__(known)
        self._unknown = unknown

    def __missing__(self, name: str) -> Actor[..., Any]:
        return self._unknown


class Unknown(Middleware):
    """See the module.

    Parameters:
      settings: the seconds that a task waits, and the Redis for questions to workers.
      results: keeps the failure of a task that no worker knows.
      answering: gets the command by which other workers ask this one.
    """

    def __init__(self, settings: Settings, results: ResultStore, answering: Answering) -> None:
        self._settings = settings
        self._results = results
        self._answering = answering
        self._answers: dict[tuple[str, str], tuple[float, bool]] = {}
        #: Called with the message of a task that is failed.
        self.listeners: list[Callable[[Any], object]] = []

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        queue = next(iter(broker.queues))
        # A run waits as long as the broker is away.
        options = {"max_retries": 0, "time_limit": _DAY_MS}
        actor = Actor(
            partial(self._run, broker),
            broker=broker,
            actor_name="dream.unknown",
            queue_name=queue,
            priority=0,
            options=options,
        )
        known = {name: each for name, each in broker.actors.items() if each is not actor}
        broker.actors = _Actors(known, actor)
        self._answering.commands["takes"] = partial(_takes, broker, worker)

    def _run(self, broker: Broker, /, *_args: Any, **_kwargs: Any) -> None:
        message: Any = CurrentMessage.get_current_message()
        waited_s = float(message.options.get(UNKNOWN_FOR_S) or 0.0)
        if waited_s < self._settings.unknown_task_s or self._is_taken(message):
            self._requeue(broker, message, waited_s)
        else:
            self._end(message)

    def _requeue(self, broker: Broker, message: MessageProxy, waited_s: float) -> None:
        wait_s = min(max(waited_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        log_it = log.warning if not waited_s else log.debug
        log_it("task_unknown", task=message.actor_name, task_id=message.message_id, waits_s=wait_s)
        later: Message[Any] = message.copy(options={UNKNOWN_FOR_S: waited_s + wait_s})
        # It is the newest of its series, so the broker would refuse it; but it only moves.
        later.options.pop(SERIES, None)

        def tell(error: Exception, _again_in_s: float) -> None:
            log.warning("message_not_put_back", task_id=message.message_id, error=str(error))

        patiently(
            lambda: broker.enqueue(later, delay=round(wait_s * 1000)),
            BROKER_AWAY,
            told=tell,
            patience_s=math.inf,  # its ack could not be sent, either
            first_pause_s=_PAUSE_S,
            longest_pause_s=_PAUSE_S,
        )

    def _is_taken(self, message: MessageProxy) -> bool:
        """Whether a running worker takes the task; True if that cannot be known."""
        task = (message.actor_name, q_name(message.queue_name))
        until, is_taken = self._answers.get(task, (0.0, False))
        if time.monotonic() < until:
            return is_taken
        question = Question(command="takes", arguments=TakesArguments(task=task[0], queue=task[1]))
        try:
            answers = ask(self._settings, question, timeout_s=_ANSWER_S)
        except (RedisError, ValueError) as error:
            log.warning("workers_not_asked", error=str(error))
            return True
        is_taken = not answers.is_complete or any(answers.by_worker.values())
        self._answers[task] = (time.monotonic() + _REMEMBERED_S, is_taken)
        return is_taken

    def _end(self, message: MessageProxy) -> None:
        log.error("task_not_registered", task=message.actor_name, task_id=message.message_id)
        celery = message.options.get(CELERY)
        if isinstance(celery, dict) and not celery.get("ignore_result"):
            error = {
                "exc_type": "NotRegistered",
                "exc_message": [message.actor_name],
                "exc_module": "celery.exceptions",
            }
            try:
                self._results.put(meta_of(message.message_id, FAILURE, error))
            except ResultsUnavailable as away:
                log.warning("result_not_kept", task_id=message.message_id, error=str(away))
        message.fail()
        for tell in self.listeners:
            tell(message)
        raise SkipMessage(f"no worker knows the task {message.actor_name!r}")


def _takes(broker: Broker, worker: Worker, arguments: Mapping[str, Any]) -> bool:
    """Whether this worker knows a task and takes its queue."""
    asked = cast("TakesArguments", arguments)
    return asked["task"] in broker.get_declared_actors() and asked["queue"] in worker.consumers
