"""Celery's work flows of several tasks, which are refused by name, each with what to use instead."""

from __future__ import annotations

from typing import Any, NoReturn

from dream.compat.exceptions import Unsupported

__all__ = ["INSTEAD", "StampingVisitor", "chain", "chord", "chunks", "group", "refuse", "xmap", "xstarmap"]

_FOR_EACH = "send a task for each item"
#: What to use in the place of each.
INSTEAD = {
    "chain": "send the next task with link=, or use dramatiq.pipeline",
    "group": "send each task, or use dramatiq.group",
    "chord": "count the tasks yourself, or use dramatiq.group with its completion callback",
    "chunks": "send a task for each piece",
    "map": _FOR_EACH,
    "replace": "send the other task, and return its id",
    "stamp": "name what belongs to a task in headers=",
    "starmap": _FOR_EACH,
    "xmap": _FOR_EACH,
    "xstarmap": _FOR_EACH,
    "StampingVisitor": "name what belongs to a task in headers=",
}


def refuse(name: str, of: str = "") -> NoReturn:
    """Refuse one.

    Parameters:
      of: the task that is asked for it.

    Raises:
      Unsupported: what to use instead.
    """
    where = f"{of}: " if of else ""
    raise Unsupported(f"{where}{name} is not supported: {INSTEAD.get(name, 'send its tasks one by one')}")


class _Refused:
    def __new__(cls, *_: Any, **__: Any) -> Any:
        names = [kind.__name__ for kind in cls.__mro__ if kind.__name__ in INSTEAD]
        refuse(names[0] if names else cls.__name__)


class chain(_Refused):  # noqa: N801 (Celery's name)
    """Refused: send the next task with `link=`, or use `dramatiq.pipeline`."""


class group(_Refused):  # noqa: N801 (Celery's name)
    """Refused: send each task, or use `dramatiq.group`."""


class chord(_Refused):  # noqa: N801 (Celery's name)
    """Refused: count the tasks yourself, or use `dramatiq.group`."""


class chunks(_Refused):  # noqa: N801 (Celery's name)
    """Refused: send a task for each piece."""


class xmap(_Refused):  # noqa: N801 (Celery's name)
    """Refused: send a task for each item."""


class xstarmap(_Refused):  # noqa: N801 (Celery's name)
    """Refused: send a task for each item."""


class StampingVisitor(_Refused):
    """Refused: name what belongs to a task in `headers=`."""
