"""Errors with Celery's names and family, under dream's own root."""

from __future__ import annotations

import math
from typing import Any

from dream.errors import BrokerUnavailable, DreamError, InvalidArguments, SettingsError

__all__ = [
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "NotConfigured",
    "NotRegistered",
    "OperationalError",
    "QueueNotFound",
    "Reject",
    "Retry",
    "SecurityError",
    "SecurityWarning",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "Unsupported",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
]


class CeleryError(DreamError):
    """The base class of the façade's errors."""

    permanent = True


class ImproperlyConfigured(CeleryError, SettingsError):
    """The configuration asks for a feature that dream lacks, or has a wrong value."""


class Unsupported(CeleryError, NotImplementedError):
    """Celery has the feature, dream lacks it."""


class BackendError(CeleryError):
    """The results cannot be read or written."""


class BackendGetMetaError(BackendError):
    """A result cannot be read."""


class BackendStoreError(BackendError):
    """A result cannot be written."""


class OperationalError(CeleryError, BrokerUnavailable):
    """The broker did not take the message."""

    permanent = False


class EncodeError(CeleryError, InvalidArguments):
    """A message cannot carry these arguments: JSON has no such type."""


# --- how a run ends other than by returning


class TaskPredicate(CeleryError):
    """Raised by a task to end its run in a special way."""


class Retry(TaskPredicate):
    """The task is to run again.

    Parameters:
      message: the reason.
      exc: the error behind it.
      when: seconds from now, or the time.
      is_eager, sig: as in Celery.
    """

    permanent = False

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: Any = None,
        is_eager: bool = False,
        sig: Any = None,
    ) -> None:
        self.message, self.exc, self.when, self.is_eager, self.sig = message, exc, when, is_eager, sig
        super().__init__(str(self))

    def humanize(self) -> str:
        """The time of the retry, as logs show it."""
        if not isinstance(self.when, int | float):
            return f"at {self.when}"
        # Whole seconds, because libraries parse them; the back-off has halves.
        return f"in {math.ceil(self.when) if self.when >= 1 else self.when}s"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}" + (f": {self.exc!r}" if self.exc else "")


class Ignore(TaskPredicate):
    """The run is over; its outcome is not stored."""


class Reject(TaskPredicate):
    """The message is dead-lettered, or requeued.

    Parameters:
      reason: the reason.
      requeue: requeue the message.
    """

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason, self.requeue = reason, requeue
        super().__init__()
        self.args = (reason, requeue)  # results store these

    def __str__(self) -> str:
        return f"rejected, requeue={self.requeue}: {self.reason}"


# --- how a task ends other than by succeeding


class TaskError(CeleryError):
    """The task failed."""


class TaskRevokedError(TaskError):
    """The task was revoked before it ran."""


class MaxRetriesExceededError(TaskError):
    """The task may not be retried again."""

    def __init__(self, message: str | None = None, *, task_args: Any = (), task_kwargs: Any = None) -> None:
        self.task_args, self.task_kwargs = task_args, task_kwargs or {}
        super().__init__(message)


class InvalidTaskError(TaskError):
    """The message is no task."""


class AlreadyRegistered(TaskError):
    """A task of that name is there."""


class NotRegistered(TaskError, KeyError):
    """No worker knows a task of that name."""

    __str__ = DreamError.__str__  # a KeyError would show its message in quotes


class QueueNotFound(TaskError, KeyError):
    """There is no queue of that name."""

    __str__ = DreamError.__str__


class TimeoutError(TaskError):  # noqa: A001 (Celery's name, and not the built-in)
    """The result did not come in time."""

    permanent = False


class SoftTimeLimitExceeded(CeleryError):
    """The run has reached its soft time limit; a task may catch this and clean up."""

    permanent = False


class TimeLimitExceeded(CeleryError):
    """The run has reached its time limit."""

    permanent = False


class ChordError(CeleryError):
    """A task of a chord failed; dream has no chords."""


class SecurityError(CeleryError):
    """A message is not to be trusted; dream signs none."""


class IncompleteStream(CeleryError):
    """A stream of bytes ended early."""


class Terminated(CeleryError):
    """The run was ended because its task was revoked."""


class WorkerLostError(CeleryError):
    """The process that ran the task died."""

    permanent = False


class TaskParked(CeleryError):
    """The bridge has parked the task's message. Celery has no such error."""


# --- warnings, which dream never gives


class CeleryWarning(UserWarning):
    """Celery's; never given."""


class AlwaysEagerIgnored(CeleryWarning):
    """Celery's; never given."""


class DuplicateNodenameWarning(CeleryWarning):
    """Celery's; never given."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Celery's; never given."""


class FixupWarning(CeleryWarning):
    """Celery's; never given."""


class NotConfigured(CeleryWarning):
    """Celery's; never given."""


class SecurityWarning(CeleryWarning):
    """Celery's; never given."""


class CDeprecationWarning(DeprecationWarning):
    """Celery's; never given."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Celery's; never given."""


# --- refused where they are raised


class WorkerShutdown(SystemExit):
    """Refused: stop workers with their service manager."""

    def __new__(cls, *_: Any) -> Any:
        raise Unsupported(f"{cls.__name__} is not supported: stop workers with their service manager")


class WorkerTerminate(WorkerShutdown):
    """Refused: stop workers with their service manager."""
