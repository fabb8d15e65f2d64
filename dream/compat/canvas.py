"""Signatures: a task with its arguments and options, to be sent later, linked to another, or carried by a message.

Work flows of several tasks are refused (`work_flows`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat import current
from dream.compat.options import task_id_of
from dream.compat.work_flows import StampingVisitor, chain, chord, chunks, group, refuse, xmap, xstarmap

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
    """A task with arguments: `{"task", "args", "kwargs", "options", "subtask_type", "immutable"}`, which is JSON.

    Parameters:
      task: the task, its name, or such a dict.
      args, kwargs: its arguments.
      options: of `apply_async`.
      immutable: it takes no further arguments, as that of the task that it is linked to.
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
        """Run the task here and now."""
        args, kwargs, _ = self._merged(args, kwargs, {})
        return self.type(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it; these arguments come first."""
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send it; these arguments come first, these options count before its own."""
        args, kwargs, options = self._merged(args, kwargs, options)
        known = self.app.tasks.get(self["task"])
        if known is None:
            return self.app.send_task(self["task"], args, kwargs, **options)
        return known.apply_async(args, kwargs, **options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it here and now as a worker would."""
        args, kwargs, options = self._merged(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def _merged(self, args: Any, kwargs: Any, options: Any) -> tuple[Any, Any, Any]:
        """An immutable one takes options only."""
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
        """Give it an id now; returns the result to come."""
        self["options"]["task_id"] = task_id_of(_id or self.id)
        return self.app.AsyncResult(self["options"]["task_id"])

    def link(self, callback: Any) -> Any:
        """Send another when it has succeeded; returns that one."""
        self["options"].setdefault("link", []).append(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Send another when it has failed; returns that one."""
        self["options"].setdefault("link_error", []).append(errback)
        return errback

    def on_error(self, errback: Any) -> Signature:
        """As `link_error`; returns itself."""
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
    """A signature of a task, of its name, or of what a message carries."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(found: Any, app: Celery | None = None) -> Any:
    """A signature of what may be one already, or None."""
    if found is None or isinstance(found, Signature):
        return found
    return Signature.from_dict(found, app=app) if isinstance(found, Mapping) else found
