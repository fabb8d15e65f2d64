"""Errors of runs: their form in results, and the difference between a task's own errors and interrupts.

    {"exc_type": qualified name, "exc_message": its arguments, "exc_module": its module}

That is Celery's form. A class is looked up in loaded modules only, as in Celery: reading a result must not import a
module that its writer names, and code that catches a class has imported it. Only exception classes are built.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dream.compat.exceptions import Reject, TaskError, TaskRevokedError, TimeLimitExceeded
from dream.compat.states import FAILURE, REJECTED, REVOKED
from dream.work import serialization

__all__ = [
    "AtLimit",
    "Requeued",
    "Stopped",
    "Terminated",
    "is_callers",
    "is_in_worker",
    "read_error",
    "stop_behind",
    "write_error",
]


class Stopped(BaseException):
    """Raised in a run's thread to end the run, even if the task catches all errors; subclasses define its outcome."""

    state: str = FAILURE
    error: BaseException


class AtLimit(Stopped):
    """The run is at its hard time limit."""

    def __init__(self) -> None:
        self.error = TimeLimitExceeded()  # a new error each time, because Sentry drops an error that it has seen


class Terminated(Stopped):
    """`control.revoke(terminate=True)` ended the run."""

    state = REVOKED

    def __init__(self) -> None:
        self.error = TaskRevokedError("terminated")


class Requeued(Stopped):
    """The worker stops, and the run's message is requeued."""

    state = REJECTED

    def __init__(self) -> None:
        self.error = Reject("the worker stops", requeue=True)


def is_callers(error: BaseException) -> bool:
    """Whether an error is a failure of the code that raised it, and no interrupt.

    In a worker's thread only a `Stopped` and Dramatiq's interrupts are interrupts: signals of the process, Ctrl-C
    included, reach its main thread alone. In other processes every error that is no `Exception` is for the process.
    """
    if isinstance(error, Exception):
        return True
    if not is_in_worker():
        return False
    from dramatiq.middleware import Interrupt

    return not isinstance(error, Stopped | Interrupt)


def stop_behind(error: BaseException | None) -> Stopped | None:
    """The error itself if it is a `Stopped`, or the `Stopped` that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Stopped):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def is_in_worker() -> bool:
    """Whether Dramatiq runs an actor in this thread; without its middleware loaded, it runs none."""
    module = sys.modules.get("dramatiq.middleware.current_message")
    return module is not None and module.CurrentMessage.get_current_message() is not None


# --- errors in results


_OURS = "dream.compat.exceptions"
#: Celery's modules of errors that have the same names here.
_CELERYS = ("celery.exceptions", "billiard.exceptions", "kombu.exceptions")
_AT_HOME = {
    "MaxRetriesExceededError": "celery.exceptions",
    "Ignore": "celery.exceptions",
    "ImproperlyConfigured": "celery.exceptions",
    "InvalidTaskError": "celery.exceptions",
    "NotRegistered": "celery.exceptions",
    "Reject": "celery.exceptions",
    "Retry": "celery.exceptions",
    "TaskRevokedError": "celery.exceptions",
    "TimeoutError": "celery.exceptions",
    "SoftTimeLimitExceeded": "billiard.exceptions",
    "Terminated": "billiard.exceptions",
    "TimeLimitExceeded": "billiard.exceptions",
    "WorkerLostError": "billiard.exceptions",
    "EncodeError": "kombu.exceptions",
    "OperationalError": "kombu.exceptions",
}


def write_error(error: BaseException) -> dict[str, Any]:
    """The error in Celery's form; its `repr` stands for an argument that JSON cannot carry."""
    kind = type(error)
    name = kind.__qualname__
    module = _AT_HOME.get(name, kind.__module__) if kind.__module__ == _OURS else kind.__module__
    return {"exc_type": name, "exc_message": [_carried(each) for each in error.args], "exc_module": module}


def read_error(written: Any) -> BaseException | None:
    """The error of a stored form: of its own class, or a `TaskError` of that name if the class is not loaded."""
    if not isinstance(written, Mapping) or "exc_type" not in written:
        return None if written is None else TaskError(str(written))
    name, module = str(written["exc_type"]), written.get("exc_module")
    message = written.get("exc_message", ())
    arguments = message if isinstance(message, list | tuple) else (message,)
    found = _find(str(module or "builtins"), name)
    if found is _NOTHING:
        found = _named(name.rpartition(".")[2], str(module))
    found = _tamed(found)
    if not isinstance(found, type) or not issubclass(found, Exception):
        return TaskError(f"a result names {module}.{name} as its error, which is no exception class")
    try:
        return found(*arguments)
    except Exception:  # noqa: BLE001 (a class may need other arguments than it stores)
        return TaskError(f"{module}.{name}({', '.join(map(repr, arguments))})")


_NOTHING = object()
#: Modules with errors that are no `Exception` and end runs.
_ENGINES = ("dramatiq.", "dream.")


def _named(name: str, module: str) -> type[TaskError]:
    try:
        return type(name, (TaskError,), {"__module__": module})
    except ValueError:  # not every string is a name
        return TaskError


def _tamed(kind: Any) -> Any:
    """A subclass that is an `Exception`, too, for a class that is none, so that `except Exception` catches it.

    None for exits and for interrupts of runs, because they would still end the reader's process or run.
    """
    if not (isinstance(kind, type) and issubclass(kind, BaseException)) or issubclass(kind, Exception):
        return kind
    if issubclass(kind, SystemExit) or any(each.__module__.startswith(_ENGINES) for each in kind.__mro__):
        return None
    names: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    names |= {"__init__": kind.__init__, "__str__": kind.__str__}
    try:
        return type(kind.__name__, (TaskError, kind), names)
    except Exception:  # noqa: BLE001 (a class may refuse to have subclasses)
        return _named(kind.__name__, kind.__module__)


def _find(module: str, name: str) -> Any:
    for place in (_OURS, module) if module in _CELERYS else (module,):
        found: Any = sys.modules.get(place, _NOTHING)
        for part in name.split("."):
            found = getattr(found, part, _NOTHING)
        if found is not _NOTHING:
            return found
    return _NOTHING


def _carried(value: Any) -> Any:
    try:
        serialization.dumps(value)
    except (TypeError, ValueError):
        return _shown(value)
    return value


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 (a caller's `__repr__` may raise anything)
        return f"<{type(value).__name__} whose repr() raises {type(error).__name__}>"
