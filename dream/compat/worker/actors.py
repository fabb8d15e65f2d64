"""Makes an app's tasks actors of this worker process: one for each task that is not dream's own, on its queue."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker, Worker
from dramatiq.middleware import CurrentMessage, Middleware

from dream.broker import send, unavailable_as_error
from dream.compat import signals
from dream.compat.exceptions import NotRegistered
from dream.compat.routes import queues_of
from dream.compat.worker.commands import commands_of
from dream.compat.worker.copies import Copies
from dream.compat.worker.django import care_for_connections
from dream.compat.worker.handling import handle
from dream.compat.worker.limits import Watch
from dream.compat.worker.patience import patiently
from dream.compat.worker.revoked import Revoked
from dream.compat.worker.suspects import Crowded, Suspects
from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import get_logger
from dream.messages import DELIVERY_ID, OWN_TASKS, SERIES, SUSPECT
from dream.middleware.answering import Answering
from dream.middleware.claims import Claims
from dream.middleware.isolation import Isolation
from dream.middleware.sentry import Sentry
from dream.middleware.time_limit import TimeLimit
from dream.middleware.unknown import Unknown
from dream.process import node_name

if TYPE_CHECKING:
    from dream.broker import AnyBroker
    from dream.compat.app.base import Celery
    from dream.compat.app.task import Task
    from dream.settings import Settings

__all__ = ["Tasks", "register"]

log = get_logger(__name__)

#: Dramatiq's limit comes this much after ours; it stops what ours did not.
_BACKSTOP_S = 2.0
#: A suspect that must run alone and cannot comes back after this long.
_COME_BACK_S = 30.0
#: A stopping worker keeps this much of its time for handing back what runs: a second for runs that listen, and one to
#: hand back those that do not.
_HAND_BACK_S = 2.0


def register(app: Celery, queues: Iterable[str] = ()) -> Tasks:
    """Make the app's tasks actors of this process.

    Parameters:
      app: finalized.
      queues: those, without prefix, that the worker takes tasks from beside the app's own.
    """
    from dream.actors import broker, shared

    tasks = Tasks(app, shared.settings, broker)
    tasks.declare(queues)
    broker.add_middleware(tasks)
    app.producer = shared.producer
    return tasks


class Tasks(Middleware):
    """An app's tasks in one worker process, and what their runs share."""

    def __init__(self, app: Celery, settings: Settings, broker: AnyBroker) -> None:
        self.app = app
        self.queue_prefix = settings.queue_prefix
        self.time_limit_s = settings.time_limit_s
        self.name = node_name(settings.worker_name)
        self.watch = Watch()
        self.revoked = Revoked(settings)
        self._claims = next((each for each in broker.middleware if isinstance(each, Claims)), None)
        self._suspects = Suspects(settings, self._claims.isolation if self._claims is not None else Isolation())
        self._copies = Copies(settings)
        self._patience_s = max(0.0, settings.shutdown_timeout_s - _HAND_BACK_S)
        self._broker = broker
        self._limit = next(each for each in broker.middleware if isinstance(each, TimeLimit))
        self._sentry = next(each for each in broker.middleware if isinstance(each, Sentry))
        self._worker: Worker | None = None

    def declare(self, queues: Iterable[str] = ()) -> None:
        """An actor for each task that has none, and every queue that tasks may come by."""
        for task in self._own():
            if task.name in self._broker.actors:
                continue
            Actor(
                partial(self._run_or_hand_back, task.name),
                broker=self._broker,
                actor_name=task.name,
                queue_name=self._queue_of(task),
                priority=0,
                options={"max_retries": 0, "time_limit": (self.time_limit_s + _BACKSTOP_S) * 1000},
            )
        for queue in self.queues(queues):
            self._broker.declare_queue(queue)

    def queues(self, queues: Iterable[str] = ()) -> set[str]:
        """The queues, with prefix, that the app's tasks may come by, and those of these names."""
        return {self.queue_prefix + self.app.queue_named(queue) for queue in (*queues_of(self.app), *queues)}

    def _own(self) -> list[Task]:
        """The app's tasks that are not dream's."""
        return [task for task in dict(self.app.tasks).values() if task.name not in OWN_TASKS]

    def _queue_of(self, task: Task) -> str:
        return self.queue_prefix + self.app.queue_named(task.queue or self.app.default_queue)

    def _run_or_hand_back(self, name: str, /, *_args: Any, **_kwargs: Any) -> None:
        try:
            self._run(name)
        except ResultsUnavailable as error:  # a minute long: the task is not lost for that, but runs later
            message: Any = CurrentMessage.get_current_message()
            log.warning("run_handed_back", task=name, task_id=message.message_id, reason=str(error))
            self.hand_back(message)

    def _run(self, name: str) -> None:
        message: Any = CurrentMessage.get_current_message()
        task = self.app.tasks[name]
        if self._copies.is_another(message):
            log.info("copy_dropped", task=name, task_id=message.message_id)
            return
        if self.is_suspect(message):
            self._run_suspect(task, message)
            return
        self._suspects.runs.enter(alone=False)
        try:
            handle(self, task, message._message, message)
        finally:
            self._suspects.runs.leave()

    def _run_suspect(self, task: Task, message: Any) -> None:
        try:
            with self._suspects.suspected(_delivery_of(message)) as is_lost:
                handle(self, task, message._message, message, is_lost=is_lost)
        except Crowded:
            later = message.copy(options={SUSPECT: True})
            later.options.pop(SERIES, None)  # it is not sent again but moved
            patiently(lambda: send(self._broker, later, _COME_BACK_S))

    # --- what runs ask of the worker

    def is_suspect(self, message: Any) -> bool:
        """Whether a worker died that had the message."""
        return message.message_id in self._broker.suspects or SUSPECT in message.options

    def set_backstop(self, hard_s: float) -> None:
        """Let Dramatiq's own limit follow that of the run in this thread."""
        self._limit.restart((hard_s + _BACKSTOP_S) * 1000)

    def hand_back(self, message: Any) -> None:
        """Put a message back on its queue, in place of the ack."""
        try:
            with unavailable_as_error():
                self._broker.hand_back(message)
        except BrokerUnavailable:  # RabbitMQ: what is not acked comes back when the connection has ended
            self._broker.hand_back(message, is_stopping=True)

    def hand_back_now(self, message: Any) -> None:
        """Put back a message whose run does not end; this worker stops."""
        self._suspects.forget(_delivery_of(message))
        self._broker.hand_back(message, is_stopping=True)
        if self._worker is not None:
            self._worker.consumers[message.queue_name].post_process_message(message)

    def report(self, message: Any, error: BaseException) -> None:
        """Report a final failure to Sentry, where the caller uses it."""
        self._sentry.report(message, error)

    def give_up(self, message: Any, thread_id: int) -> None:
        """Ack a message whose run does not end, and let this worker be replaced."""
        self._limit.give_up(thread_id)
        if self._worker is not None:
            self._worker.consumers[message.queue_name].post_process_message(message)

    # --- the worker's life

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._worker = worker
        care_for_connections()
        # Celery documents these signals for the set-up of a worker, of Sentry for example.
        signals.celeryd_init.send(self.name, instance=self, conf=self.app.conf, options={})
        signals.celeryd_after_setup.send(self.name, instance=self, conf=self.app.conf)
        signals.worker_init.send(self)
        self.watch.start()
        self.revoked.start()
        for each in self._broker.middleware:
            if isinstance(each, Unknown):
                each.listeners.append(self._tell_of_unknown)
            if isinstance(each, Answering):
                each.commands |= commands_of(self, self._claims)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        signals.worker_process_init.send(self)
        signals.worker_ready.send(self)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        signals.worker_shutting_down.send(self, sig="SIGTERM", how="Warm", exitcode=0)
        timer = threading.Timer(self._patience_s, self.watch.hand_back)
        timer.daemon = True
        timer.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self.revoked.stop()
        self.watch.stop()
        signals.worker_process_shutdown.send(self)
        signals.worker_shutdown.send(self)

    def _tell_of_unknown(self, message: Any) -> None:
        name, error = message.actor_name, NotRegistered(f"no worker knows the task {message.actor_name!r}")
        signals.task_unknown.send(self, name=name, id=message.message_id, message=message, exc=error)


def _delivery_of(message: Any) -> str:
    delivery: str = message.options.get(DELIVERY_ID, message.message_id)
    return delivery
