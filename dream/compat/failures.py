"""Errors in results: written as Celery writes them, and read back as their own class.

    {"exc_type": qualified name, "exc_message": its arguments, "exc_module": its module}

A class is looked for in modules that are loaded, as Celery does: reading a result must not import whatever its writer
names, and who catches a class has imported it. Nothing but exception classes is ever built.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dream import serialization
from dream.compat.exceptions import TaskError

__all__ = ["read_error", "write_error"]

_OURS = "dream.compat.exceptions"
#: Where Celery has the errors that are called so here too.
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
    """The error in Celery's form; an argument that JSON cannot carry is written as its `repr`."""
    kind = type(error)
    name = kind.__qualname__
    module = _AT_HOME.get(name, kind.__module__) if kind.__module__ == _OURS else kind.__module__
    return {"exc_type": name, "exc_message": [_carried(each) for each in error.args], "exc_module": module}


def read_error(written: Any) -> BaseException | None:
    """The error again: of its own class, or of a `TaskError` of that name where the class is not to be had."""
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
    except Exception:  # noqa: BLE001 (a class may want other arguments than it passes on)
        return TaskError(f"{module}.{name}({', '.join(map(repr, arguments))})")


_NOTHING = object()
#: Modules whose exceptions end runs where they are no `Exception`.
_ENGINES = ("dramatiq.", "dream.")


def _named(name: str, module: str) -> type[TaskError]:
    try:
        return type(name, (TaskError,), {"__module__": module})
    except ValueError:  # there are strings that are no name
        return TaskError


def _tamed(kind: Any) -> Any:
    """A subclass that is an `Exception` too, for a class that is none: the reader's `except Exception` catches it.

    None for exits and for errors that end runs from outside, because these would still be obeyed.
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
    except Exception as error:  # noqa: BLE001 (whatever a caller's `__repr__` raises)
        return f"<{type(value).__name__} whose repr() raises {type(error).__name__}>"
