"""Makes an app's tasks actors of this worker process: one for each task that is not dream's own, on its queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker, Worker
from dramatiq.middleware import CurrentMessage, Middleware

from dream.compat import signals
from dream.compat.routes import named_queues, queue_names
from dream.compat.worker.handling import handle
from dream.compat.worker.limits import Watch
from dream.compat.worker.revoked import Revoked
from dream.log import get_logger
from dream.messages import OWN_TASKS
from dream.middleware.answering import Answering
from dream.middleware.time_limit import TimeLimit
from dream.process import node_name

if TYPE_CHECKING:
    from dream.broker import AnyBroker
    from dream.compat.app.base import Celery
    from dream.settings import Settings

__all__ = ["Tasks", "register"]

log = get_logger(__name__)

#: Dramatiq's limit comes this much after ours; it stops what ours did not.
_BACKSTOP_S = 2.0


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
        self._broker = broker
        self._limit = next(each for each in broker.middleware if isinstance(each, TimeLimit))
        self._worker: Worker | None = None

    def declare(self, queues: Iterable[str] = ()) -> None:
        """An actor for each task, and every queue that tasks may come by."""
        conf = self.app.conf
        named = {self.app.default_queue, *queue_names(conf.task_queues), *named_queues(conf.task_routes), *queues}
        for task in dict(self.app.tasks).values():
            if task.name in OWN_TASKS:
                continue
            queue = self.app.queue_named(task.queue or self.app.default_queue)
            named.add(queue)
            Actor(
                partial(self._run, task.name),
                broker=self._broker,
                actor_name=task.name,
                queue_name=self.queue_prefix + queue,
                priority=0,
                options={"max_retries": 0, "time_limit": (self.time_limit_s + _BACKSTOP_S) * 1000},
            )
        for queue in named:
            self._broker.declare_queue(self.queue_prefix + self.app.queue_named(queue))

    def _run(self, name: str, *_args: Any, **_kwargs: Any) -> None:
        message: Any = CurrentMessage.get_current_message()
        handle(self, self.app.tasks[name], message._message, message)

    # --- what runs ask of the worker

    def set_backstop(self, hard_s: float) -> None:
        """Let Dramatiq's own limit follow that of the run in this thread."""
        self._limit.restart((hard_s + _BACKSTOP_S) * 1000)

    def hand_back(self, message: Any) -> None:
        """Put a message back on its queue, in place of the ack."""
        self._broker.hand_back(message)

    def give_up(self, message: Any) -> None:
        """Ack a message whose run does not end, and let this worker be replaced."""
        self._limit.give_up()
        if self._worker is not None:
            self._worker.consumers[message.queue_name].post_process_message(message)

    # --- the worker's life

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._worker = worker
        signals.worker_init.send(self)
        self.watch.start()
        self.revoked.start()
        for each in self._broker.middleware:
            if isinstance(each, Answering):
                each.commands["revoke"] = self._revoke

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        signals.worker_process_init.send(self)
        signals.worker_ready.send(self)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        signals.worker_shutting_down.send(self, sig="SIGTERM", how="Warm", exitcode=0)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self.revoked.stop()
        self.watch.stop()
        signals.worker_process_shutdown.send(self)
        signals.worker_shutdown.send(self)

    def _revoke(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to `control.revoke`."""
        task_ids = list(arguments["task_ids"])
        self.revoked.add(task_ids)
        ended = [each for each in task_ids if arguments.get("terminate") and self.watch.terminate(each)]
        log.info("tasks_revoked", count=len(task_ids), terminated=len(ended))
        return {"ok": f"tasks {', '.join(task_ids)} flagged as revoked" + (", terminated" if ended else "")}
