"""Signatures: a task with its arguments and options, to be sent later, linked to another, or carried by a message.

Celery's work flows of several tasks are classes here, too, which refuse to be called.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat import current
from dream.compat.options import task_id_of
from dream.compat.refused import WORK_FLOWS, refuse

if TYPE_CHECKING:
    from dream.compat.app.base import Celery

__all__ = [
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]


class Signature(dict[str, Any]):
    """A task with arguments, as a dict that JSON carries: task, args, kwargs, options, subtask_type, immutable.

    Parameters:
      task: the task, its name, or such a dict.
      args, kwargs: its arguments.
      options: of `apply_async`.
      immutable: it takes no further arguments, such as the result of the task before it.
      app: the app that sends it; the current one by default.
      **more: more options.
    """

    def __init__(
        self,
        task: Any = None,
        args: Any = None,
        kwargs: Any = None,
        options: Any = None,
        type: Any = None,  # noqa: A002, ARG002 (Celery's name)
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Celery | None = None,
        **more: Any,
    ) -> None:
        self._app = app
        if isinstance(task, Mapping):
            super().__init__(task)
            return
        super().__init__(
            task=task if isinstance(task, str) else task.name,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **more},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], app: Celery | None = None) -> Signature:
        """The signature that a message carries.

        Raises:
          Unsupported: it is a work flow.
        """
        kind = found.get("subtask_type")
        if kind:
            refuse(str(kind))
        return cls(
            {"args": (), "kwargs": {}, "options": {}, "immutable": False, "subtask_type": None, **found}, app=app
        )

    @property
    def app(self) -> Celery:
        return self._app or current.get_current_app()

    @property
    def type(self) -> Any:
        """The task.

        Raises:
          NotRegistered
        """
        return self.app.tasks[self["task"]]

    task = property(lambda self: self["task"])
    name = task
    args = property(lambda self: self["args"], lambda self, value: self.__setitem__("args", value))
    kwargs = property(lambda self: self["kwargs"], lambda self, value: self.__setitem__("kwargs", value))
    options = property(lambda self: self["options"], lambda self, value: self.__setitem__("options", value))
    immutable = property(lambda self: self["immutable"], lambda self, value: self.__setitem__("immutable", value))
    subtask_type = property(lambda self: self["subtask_type"])

    @property
    def id(self) -> str | None:
        found: str | None = self["options"].get("task_id")
        return found

    # --- run and sent

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task in this thread."""
        args, kwargs, _ = self._merged(args, kwargs, {})
        return self.type(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it; these arguments come first."""
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send it; these arguments come first, and these options replace its own."""
        args, kwargs, options = self._merged(args, kwargs, options)
        known = self.app.tasks.get(self["task"])
        if known is None:
            return self.app.send_task(self["task"], args, kwargs, **options)
        return known.apply_async(args, kwargs, **options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it in this thread as a worker would."""
        args, kwargs, options = self._merged(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def _merged(self, args: Any, kwargs: Any, options: Any) -> tuple[Any, Any, Any]:
        """The arguments and options of a call; an immutable signature takes options only."""
        options = {**self["options"], **{name: value for name, value in options.items() if value is not None}}
        if self["immutable"]:
            return tuple(self["args"]), dict(self["kwargs"]), options
        return (*(args or ()), *self["args"]), {**self["kwargs"], **(kwargs or {})}, options

    # --- changed

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Signature:
        """A copy, with more arguments and options."""
        merged = self._merged(args, kwargs, options)
        fresh = Signature(copy.deepcopy(dict(self)), app=self._app)
        fresh["args"], fresh["kwargs"], fresh["options"] = merged
        return fresh

    partial = clone

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Set options; returns itself."""
        if immutable is not None:
            self["immutable"] = immutable
        self["options"].update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def freeze(self, _id: str | None = None, **_: Any) -> Any:
        """Give it an id; returns the result of that id."""
        self["options"]["task_id"] = task_id_of(_id or self.id)
        return self.app.AsyncResult(self["options"]["task_id"])

    def link(self, callback: Any) -> Any:
        """Send another signature when it has succeeded; returns the other."""
        self["options"].setdefault("link", []).append(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Send another signature when it has failed; returns the other."""
        self["options"].setdefault("link_error", []).append(errback)
        return errback

    def on_error(self, errback: Any) -> Signature:
        """Call `link_error`, and return this signature."""
        self.link_error(errback)
        return self

    def stamp(self, *_: Any, **__: Any) -> NoReturn:
        """Refused."""
        refuse("stamp")

    def __or__(self, _other: Any) -> NoReturn:
        refuse("chain")

    def __deepcopy__(self, memo: Any) -> Signature:
        return Signature(copy.deepcopy(dict(self), memo), app=self._app)

    def __reduce__(self) -> Any:
        return Signature, (dict(self),)

    def __repr__(self) -> str:
        given = [*map(repr, self["args"]), *(f"{name}={value!r}" for name, value in self["kwargs"].items())]
        return f"{self['task']}({', '.join(given)})"


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature:
    """The signature of a task, of a task's name, or of a dict that a message carries."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(found: Any, app: Celery | None = None) -> Any:
    """The signature of a dict; a signature, or None, is returned as it is."""
    if found is None or isinstance(found, Signature):
        return found
    return Signature.from_dict(found, app=app) if isinstance(found, Mapping) else found


# --- work flows


class _Refused:
    def __new__(cls, *_: Any, **__: Any) -> Any:
        names = [kind.__name__ for kind in cls.__mro__ if kind.__name__ in WORK_FLOWS]
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
