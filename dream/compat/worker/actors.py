"""Actors of a worker process for an app's tasks: one for each task that is not the host's own, on its queue."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker, Worker
from dramatiq.middleware import CurrentMessage, Middleware

from dream.compat import signals
from dream.compat.django import care_for_connections
from dream.compat.exceptions import NotRegistered, SoftTimeLimitExceeded
from dream.compat.failures import AtLimit, Requeued, Stopped
from dream.compat.host import host
from dream.compat.queues import queues_of
from dream.compat.worker.control import commands_of
from dream.compat.worker.handling import handle
from dream.compat.worker.unwanted import Copies, Revoked
from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import get_logger
from dream.work.broker import send, unavailable_as_error
from dream.work.isolation import Crowded, Isolation, Suspects
from dream.work.limits import Watch
from dream.work.messages import DELIVERY_ID, SERIES, SUSPECT
from dream.work.patience import for_a_minute
from dream.work.process import node_name

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.task import Task
    from dream.compat.host import HostRuns, WorkerHost
    from dream.settings import Settings
    from dream.work.broker import AnyBroker
    from dream.work.worker import WorkerMiddleware

__all__ = ["Tasks", "register"]

log = get_logger(__name__)

#: Dramatiq's limit ends a run this many seconds after the façade's limit, if that had no effect.
_BACKSTOP_S = 2.0
#: Seconds after which a suspect comes back if it could not run alone.
_COME_BACK_S = 30.0
#: Seconds that a stopping worker keeps for its runs: one in which runs can react, and one to requeue the messages of
#: the others.
_REQUEUE_S = 2.0


def register(app: Celery, worker: WorkerHost, queues: Iterable[str] = ()) -> Tasks:
    """Make the app's tasks actors of this process.

    Parameters:
      app: finalized.
      worker: the worker of this process.
      queues: further queues, without prefix, beside the app's own.
    """
    tasks = Tasks(app, worker.settings, worker.broker, worker.middleware, worker.runs)
    tasks.declare(queues)
    worker.broker.add_middleware(tasks)
    return tasks


class Tasks(Middleware):
    """An app's tasks in one worker process, and the objects that their runs share.

    Parameters:
      app: finalized.
      settings: the process's.
      broker: gets the actors.
      middleware: the worker's.
      host_runs: the runs of the host's own tasks in this worker.
    """

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        broker: AnyBroker,
        middleware: WorkerMiddleware,
        host_runs: HostRuns | None = None,
    ) -> None:
        self.app = app
        self.queue_prefix = settings.queue_prefix
        self.time_limit_s = settings.time_limit_s
        self.name = node_name(settings.worker_name)
        self.watch = Watch[Stopped](SoftTimeLimitExceeded, AtLimit)
        self.revoked = Revoked(settings)
        self._host_runs = host_runs
        self._suspects = Suspects(settings, host_runs.isolation if host_runs is not None else Isolation())
        self._copies = Copies(settings)
        self._patience_s = max(0.0, settings.shutdown_timeout_s - _REQUEUE_S)
        self._broker = broker
        self._limit = middleware.limit
        self._sentry = middleware.sentry
        self._answering = middleware.answering
        middleware.unknown.listeners.append(self._tell_of_unknown)
        self._worker: Worker | None = None

    def declare(self, queues: Iterable[str] = ()) -> None:
        """Declare an actor for each task without one, and each queue on which tasks may arrive."""
        for task in self._own():
            if task.name in self._broker.actors:
                continue
            Actor(
                partial(self._run_or_requeue, task.name),
                broker=self._broker,
                actor_name=task.name,
                queue_name=self._queue_of(task),
                priority=0,
                options={"max_retries": 0, "time_limit": (self.time_limit_s + _BACKSTOP_S) * 1000},
            )
        for queue in self.queues(queues):
            self._broker.declare_queue(queue)

    def queues(self, queues: Iterable[str] = ()) -> set[str]:
        """The queues, with prefix, on which the app's tasks may arrive, and these further queues."""
        return {self.queue_prefix + self.app.queue_named(queue) for queue in (*queues_of(self.app), *queues)}

    def _own(self) -> list[Task]:
        """The app's tasks that are not the host's own."""
        return [task for task in dict(self.app.tasks).values() if task.name not in host().tasks]

    def _queue_of(self, task: Task) -> str:
        return self.queue_prefix + self.app.queue_named(task.queue or self.app.default_queue)

    def _run_or_requeue(self, name: str, /, *_args: Any, **_kwargs: Any) -> None:
        try:
            self._run(name)
        except ResultsUnavailable as error:  # away for a minute: the task is not lost, it runs later
            message: Any = CurrentMessage.get_current_message()
            log.warning("run_handed_back", task=name, task_id=message.message_id, reason=str(error))
            self.requeue(message)

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
            later.options.pop(SERIES, None)  # the message only moves: it is no second one
            for_a_minute(lambda: send(self._broker, later, _COME_BACK_S))

    # --- called by runs

    def is_suspect(self, message: Any) -> bool:
        """Whether a worker died that had fetched the message."""
        return message.message_id in self._broker.suspects or SUSPECT in message.options

    def set_backstop(self, hard_s: float) -> None:
        """Let Dramatiq's own limit follow the limit of the run in this thread."""
        self._limit.restart((hard_s + _BACKSTOP_S) * 1000)

    def requeue(self, message: Any) -> None:
        """Requeue a message, in place of the ack."""
        try:
            with unavailable_as_error():
                self._broker.requeue(message)
        except BrokerUnavailable:  # RabbitMQ requeues unacknowledged messages when the connection ends
            self._broker.requeue(message, is_stopping=True)

    def requeue_now(self, message: Any) -> None:
        """Requeue a message whose run does not end, because this worker stops."""
        self._suspects.forget(_delivery_of(message))
        self._broker.requeue(message, is_stopping=True)
        if self._worker is not None:
            self._worker.consumers[message.queue_name].post_process_message(message)

    def report(self, message: Any, error: BaseException) -> None:
        """Report a final failure to Sentry, if the caller uses it."""
        self._sentry.report(message, error)

    def give_up(self, message: Any, thread_id: int) -> None:
        """Acknowledge a message whose run does not end, and let this worker be replaced."""
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
        self._answering.commands |= commands_of(self, self._host_runs)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        signals.worker_process_init.send(self)
        signals.worker_ready.send(self)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        signals.worker_shutting_down.send(self, sig="SIGTERM", how="Warm", exitcode=0)
        timer = threading.Timer(self._patience_s, self.watch.end_all, (Requeued,))
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
