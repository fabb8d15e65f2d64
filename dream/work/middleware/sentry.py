"""Sentry, if the caller uses it: each run is a transaction, and each final failure one event.

    a scope for the run ─► the run ─► final failure: captured ─► the transaction ends
    (name, id, queue)         └─► a retry follows: nothing

The caller sets Sentry up, or `DREAM_SENTRY_DSN` does: without `sentry_sdk.init` nothing happens here. One failure may
give several events, from log lines, from Sentry's own integration for Dramatiq, and from this module. One is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from enum import Enum, auto
from importlib import import_module
from typing import Any

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.middleware import Middleware

from dream.log import TASK_FAILURES
from dream.observe.sentry import in_use
from dream.work.messages import sender_headers

__all__ = ["Sentry"]

#: Dramatiq's own logger of each run that raised, even if a retry follows.
_OF_EACH_RUN = "dramatiq.worker.WorkerThread"
#: Events of dream's log that report a failure, and events after which another one reports the same failure.
_TOLD = frozenset({"message_malformed", "task_failed"})
_TOLD_BEFORE = frozenset({"retry_not_enqueued", "task_lost"})
_FLUSH_S = 2.0


class _Tells(Enum):
    """The meaning of an event for a run."""

    FAILURE = auto()
    #: Another event reports the same failure.
    AGAIN = auto()
    OTHER = auto()


class Sentry(Middleware):
    """See the module.

    Parameters:
      aliases: older names of tasks, and their present ones, which events carry.
    """

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._aliases = aliases
        self._runs: dict[int, _Run] = {}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        # First in the list: Sentry's own integration for Dramatiq patches the broker's constructor, which puts Sentry's
        # middleware before all that it is given. Our scope must be around that one, too.
        broker.middleware.remove(self)
        broker.middleware.insert(0, self)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        if (sdk := in_use()) is not None:
            sdk.flush(timeout=_FLUSH_S)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        sdk = in_use()
        if sdk is None:
            return
        # Ignored here and not dropped later: Sentry sends each error once, and would think that it was sent.
        import_module("sentry_sdk.integrations.logging").ignore_logger(_OF_EACH_RUN)
        run = self._runs[id(message)] = _Run(sdk, message, self._aliases.get(message.actor_name, message.actor_name))
        run.begin(has_transaction=any(type(each).__name__ == "SentryMiddleware" for each in broker.middleware))

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, exception: BaseException | None = None, **_: Any
    ) -> None:
        run = self._runs.pop(id(message), None)
        if run is None:
            return
        with run.stack:
            if exception is not None and message.failed and not _is_expected(broker, message, exception):
                run.report(exception)

    after_skip_message = after_process_message

    def report(self, message: MessageProxy, error: BaseException) -> None:
        """Report the final failure of a run, in this thread or another, that Dramatiq does not see."""
        if (run := self._runs.get(id(message))) is not None:
            run.report(error)


class _Run:
    """One run in Sentry: its scope and its transaction."""

    def __init__(self, sdk: Any, message: MessageProxy, name: str) -> None:
        self.stack = ExitStack()
        self._sdk = sdk
        self._message = message
        self._name = name
        self._is_told = False
        self._scope: Any = None
        self._transaction: Any = None

    def begin(self, *, has_transaction: bool) -> None:
        """Enter a scope, and a transaction unless Sentry's own integration begins one."""
        message = self._message
        self._scope = scope = self.stack.enter_context(self._sdk.isolation_scope())
        scope.clear_breadcrumbs()
        scope.set_transaction_name(self._name, source="task")
        for tag in ("task_id", "celery_task_id"):  # the second is the tag of Sentry's integration for Celery
            scope.set_tag(tag, message.message_id)
        scope.set_tag("task_name", self._name)
        scope.set_context("task", {"name": self._name, "id": message.message_id, "queue": message.queue_name})
        scope.add_event_processor(self._judged)
        if not has_transaction:
            how = {"op": "queue.task.dream", "name": self._name, "source": "task"}
            transaction = self._sdk.continue_trace(sender_headers(message.options), **how)
            self._transaction = self.stack.enter_context(self._sdk.start_transaction(transaction))
            self._transaction.set_status("ok")

    def report(self, error: BaseException) -> None:
        """Send the failure, unless it was sent before."""
        if self._transaction is not None:
            self._transaction.set_status("internal_error")
        with self._sdk.scope.use_isolation_scope(self._scope):
            options = self._sdk.get_client().options
            mechanism = {"type": "dream", "handled": False}
            event, hint = self._sdk.utils.event_from_exception(error, client_options=options, mechanism=mechanism)
            self._sdk.capture_event(event, hint=hint)

    def _judged(self, event: Any, hint: Mapping[str, Any]) -> Any:
        """The event, or None to drop it: a retry follows, or the failure was sent before."""
        tells = self._told_by(event, hint.get("log_record"))
        if tells is _Tells.AGAIN or (tells is _Tells.FAILURE and self._is_told):
            return None
        self._is_told = self._is_told or tells is _Tells.FAILURE
        return event

    def _told_by(self, event: Mapping[str, Any], record: Any) -> _Tells:
        if record is None:
            kind = _mechanism_of(event)
            if kind == "dramatiq":
                return _Tells.FAILURE if self._message.failed else _Tells.AGAIN
            return _Tells.FAILURE if kind == "dream" else _Tells.OTHER
        if _task_of(record) != self._message.message_id:
            return _Tells.OTHER  # perhaps of a task that runs inside this one
        event_name = getattr(record, "dream_event", None)
        if event_name in _TOLD_BEFORE or (event_name == "task_failed" and self._message.failed):
            return _Tells.AGAIN
        return _Tells.FAILURE if record.name == TASK_FAILURES or event_name in _TOLD else _Tells.OTHER


def _task_of(record: Any) -> Any:
    """The id of the task in a log line."""
    return (getattr(record, "data", None) or {}).get("id") or getattr(record, "dream_fields", {}).get("task_id")


def _mechanism_of(event: Mapping[str, Any]) -> Any:
    values = (event.get("exception") or {}).get("values") or [{}]
    return (values[-1].get("mechanism") or {}).get("type")


def _is_expected(broker: Broker, message: MessageProxy, exception: BaseException) -> bool:
    """Whether the actor `throws` this. Tasks with a row are reported all the same, because their rows have failed."""
    options = broker.get_actor(message.actor_name).options
    throws: Any = message.options.get("throws") or options.get("throws")
    return bool(throws) and isinstance(exception, throws) and not options.get("durable")
