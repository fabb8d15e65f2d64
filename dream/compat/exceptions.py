"""Errors with Celery's names and family, under dream's own root."""

from __future__ import annotations

from dream.errors import DreamError

__all__ = [
    "CeleryError",
    "ImproperlyConfigured",
    "NotRegistered",
    "OperationalError",
    "TaskError",
    "TaskRevokedError",
    "TimeoutError",
]


class CeleryError(DreamError):
    """Something in the façade went wrong."""

    permanent = True


class ImproperlyConfigured(CeleryError):
    """The configuration asks for what is not there."""


class OperationalError(CeleryError):
    """A server did not answer."""

    permanent = False


class TaskError(CeleryError):
    """The task failed."""


class TaskRevokedError(TaskError):
    """The task was revoked before it ran."""


class NotRegistered(TaskError, KeyError):
    """No worker knows a task of that name."""

    __str__ = DreamError.__str__  # a KeyError would show its message in quotes


class TimeoutError(CeleryError):  # noqa: A001 (Celery's name, and not the built-in)
    """The result did not come in time."""

    permanent = False
