"""Celery's signals, and the two of each app: functions that are called when something happens in this process.

`send` calls each receiver with `signal=`, `sender=` and the arguments that Celery documents. An error of a receiver is
logged; the other receivers are called all the same. All of Celery's signals are here; docs/celery.md lists those that
are sent.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

from dream.compat.failures import is_callers

__all__ = [
    "AppSignal",
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "eventlet_pool_apply",
    "eventlet_pool_postshutdown",
    "eventlet_pool_preshutdown",
    "eventlet_pool_started",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_success",
    "task_unknown",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
]

log = logging.getLogger(__name__)

Receiver = Callable[..., Any]


class Signal:
    """A signal.

    Parameters:
      name: its name.
      providing_args, use_caching: accepted as in Celery; without effect.
    """

    def __init__(self, name: str = "", providing_args: Any = None, use_caching: bool = False) -> None:  # noqa: ARG002
        self.name = name
        self._receivers: dict[Any, tuple[Any, Any]] = {}

    @property
    def receivers(self) -> list[Any]:
        """The receivers."""
        return list(self._receivers.values())

    def connect(
        self,
        receiver: Receiver | None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        **_: Any,
    ) -> Any:
        """Add a receiver; also a decorator, with or without arguments.

        Parameters:
          sender: call the receiver for this sender only; a task may be given by its name.
          weak: forget the receiver once nothing else refers to it.
          dispatch_uid: a later receiver with the same one replaces this one.
        """
        if receiver is None:
            return lambda function: self.connect(function, sender, weak, dispatch_uid)
        key = (dispatch_uid or _identity(receiver), _sender_key(sender))
        self._receivers[key] = (_reference(receiver) if weak else lambda: receiver, _sender_key(sender))
        return receiver

    def disconnect(
        self, receiver: Receiver | None = None, sender: Any = None, dispatch_uid: Any = None, **_: Any
    ) -> bool:
        """Remove a receiver; returns whether it was there."""
        key = (dispatch_uid or _identity(receiver), _sender_key(sender))
        return self._receivers.pop(key, None) is not None

    def send(self, sender: Any, **named: Any) -> list[tuple[Receiver, Any]]:
        """Call the receivers of this sender; returns each with its return value or its error."""
        if not self._receivers:
            return []
        answers: list[tuple[Receiver, Any]] = []
        for key, (reference, wanted) in list(self._receivers.items()):
            receiver = reference()
            if receiver is None:
                self._receivers.pop(key, None)
            elif wanted is None or wanted == _sender_key(sender):
                answers.append((receiver, self._call(receiver, sender, named)))
        return answers

    send_robust = send

    def _call(self, receiver: Receiver, sender: Any, named: dict[str, Any]) -> Any:
        try:
            return receiver(signal=self, sender=sender, **named)
        except BaseException as error:
            if not is_callers(error):
                raise
            log.error("the receiver %r of the signal %s failed", receiver, self.name, exc_info=True)
            return error

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _identity(receiver: Any) -> Any:
    method_of = getattr(receiver, "__self__", None)
    return (
        (id(method_of), id(receiver.__func__))
        if method_of is not None and hasattr(receiver, "__func__")
        else id(receiver)
    )


def _sender_key(sender: Any) -> Any:
    """The key of a sender: a task's name for the task, too."""
    return sender if sender is None or isinstance(sender, str) else getattr(sender, "name", None) or id(sender)


def _reference(receiver: Any) -> Callable[[], Any]:
    try:
        return weakref.WeakMethod(receiver) if hasattr(receiver, "__func__") else weakref.ref(receiver)
    except TypeError:
        return lambda: receiver


class AppSignal:
    """A signal of one app, sent once: `on_after_configure`, `on_after_finalize`. Later receivers are called at once.

    Parameters:
      sender: the app.
    """

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._receivers: list[Receiver] = []
        self._sent: dict[str, Any] | None = None

    def connect(self, receiver: Receiver | None = None, **_how: Any) -> Any:
        """Add a receiver, also as a decorator with or without arguments; it is called with `sender=app`."""
        if receiver is None:
            return self.connect
        self._receivers.append(receiver)
        if self._sent is not None:
            receiver(sender=self._sender, **self._sent)
        return receiver

    def send(self, **named: Any) -> None:
        """Call every receiver, in order; a second `send` does nothing."""
        if self._sent is not None:
            return
        self._sent = named
        for receiver in tuple(self._receivers):
            receiver(sender=self._sender, **named)


# --- where messages are sent

before_task_publish = Signal("before_task_publish")
after_task_publish = Signal("after_task_publish")

# --- where tasks run

task_received = Signal("task_received")
task_prerun = Signal("task_prerun")
task_postrun = Signal("task_postrun")
task_success = Signal("task_success")
task_retry = Signal("task_retry")
task_failure = Signal("task_failure")
task_internal_error = Signal("task_internal_error")
task_revoked = Signal("task_revoked")
task_rejected = Signal("task_rejected")
task_unknown = Signal("task_unknown")

# --- a worker's life

eventlet_pool_started = Signal("eventlet_pool_started")
eventlet_pool_preshutdown = Signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = Signal("eventlet_pool_postshutdown")
eventlet_pool_apply = Signal("eventlet_pool_apply")
celeryd_init = Signal("celeryd_init")
celeryd_after_setup = Signal("celeryd_after_setup")
import_modules = Signal("import_modules")
worker_init = Signal("worker_init")
worker_before_create_process = Signal("worker_before_create_process")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown")
worker_ready = Signal("worker_ready")
worker_shutting_down = Signal("worker_shutting_down")
worker_shutdown = Signal("worker_shutdown")
heartbeat_sent = Signal("heartbeat_sent")

# --- the scheduler's, and logging

beat_init = Signal("beat_init")
beat_embedded_init = Signal("beat_embedded_init")
setup_logging = Signal("setup_logging")
after_setup_logger = Signal("after_setup_logger")
after_setup_task_logger = Signal("after_setup_task_logger")
