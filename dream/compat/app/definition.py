"""Definitions of tasks: a function or a class becomes a task, and its options are checked."""

from __future__ import annotations

import functools
import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dream.compat.app import retrying
from dream.compat.app.task import Task
from dream.compat.conf import resolve
from dream.compat.exceptions import ImproperlyConfigured, Unsupported
from dream.compat.refused import TASK_OPTIONS

if TYPE_CHECKING:
    from dream.compat.app.base import Celery

__all__ = ["LaterBased", "base_from", "complete", "define_task", "give_base"]


def define_task(app: Celery, function: Callable[..., Any], options: Mapping[str, Any]) -> Task:
    """Define a task that runs a function; return the task of that name if there is one.

    Parameters:
      app: the task's app.
      function: the code that it runs.
      options: of `@app.task`; all but `name`, `bind` and `base` become attributes of the task.

    Raises:
      ImproperlyConfigured, Unsupported: an option is wrong or refused.
    """
    rest = dict(options)
    name = rest.pop("name", None) or app.gen_task_name(function.__name__, function.__module__)
    base, bind = rest.pop("base", None), rest.pop("bind", False)
    rest.pop("shared", None), rest.pop("lazy", None)
    if name in app.tasks.data:
        return app.tasks.data[name]
    if base is not None:
        _check_base(f"{name}: base", base)
    attributes = {
        "name": name,
        "run": function if bind else staticmethod(function),
        "abstract": False,
        **({} if app.strict_typing else {"typing": False}),
        "__name__": function.__name__,
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__wrapped__": function,
        **rest,
    }
    kind = type(function.__name__, (base or app.base_of_tasks,), attributes)
    task: Task = kind()
    if base is None:
        app.without_base.append(task)
    if not issubclass(kind, LaterBased):
        return app.register_task(task)
    vars(task)["app"] = app
    app.tasks[name] = task
    return task


class LaterBased(Task):
    """The base of an app's tasks while only its name is known: importing its module may need the app.

    The first attribute access or call of a task imports the module and finds the real base.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__dict__") or not _find_base(self):
            return object.__getattribute__(self, name)
        return getattr(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self(*args, **kwargs) if _find_base(self) else Task.__call__(self, *args, **kwargs)


def _find_base(task: LaterBased) -> bool:
    """Find the task's base; returns False while the base's module is still being imported."""
    _ = vars(task)["app"].Task
    return LaterBased not in type(task).__bases__


def base_from(named: Any) -> type[Task]:
    """The base class that an app is configured with: a class, or the dotted name of one.

    Raises:
      ImproperlyConfigured: it is no class of tasks.
    """
    found = resolve(named) if isinstance(named, str) else named
    _check_base("task_cls", found)
    return found  # type: ignore[no-any-return]


def give_base(app: Celery, task: Task, base: type[Task]) -> None:
    """Give a task that was defined without `base=` the app's new base class, as if it were defined now.

    Raises:
      ImproperlyConfigured, Unsupported: see `complete`.
    """
    type(task).__bases__ = (base,)
    for name in ("run", "_signature_of_run"):  # made from the old class
        vars(task).pop(name, None)
    task.__init__()  # type: ignore[misc]
    complete(app, task)


def _check_base(what: str, kind: Any) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ImproperlyConfigured(f"{what} must be a subclass of dream.compat.Task, or of app.Task, not {kind!r}")


def complete(app: Celery, task: Task) -> None:
    """Complete a task with its app, and check its definition.

    Raises:
      ImproperlyConfigured, Unsupported: an option is wrong or refused; the message names it.
    """
    if not task.name:
        task.name = app.gen_task_name(type(task).__name__, type(task).__module__)
    task.app = app
    _check(task)
    if task.rate_limit:
        problem = f"{task.name}: rate_limit={task.rate_limit!r} has no effect here"
        warnings.warn(f"{problem}: use dramatiq.rate_limits in the task (docs/celery.md)", stacklevel=4)
    retrying.check_endless(task)
    _add_models(task)
    retrying.add_autoretry(task)
    task.on_bound(app)


def _check(task: Task) -> None:
    for option, (harmless, instead) in TASK_OPTIONS.items():
        value = inspect.getattr_static(task, option, None)
        if value not in (*harmless, vars(Task).get(option)):
            raise Unsupported(f"{task.name}: the task option {option}={value!r} is not supported: {instead}")
    if hasattr(task, "shadow_name"):
        raise Unsupported(f"{task.name}: shadow_name is not called here: use shadow= where the task is sent")
    for option in ("time_limit", "soft_time_limit"):
        value = getattr(task, option)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise ImproperlyConfigured(f"{task.name}: {option} must be a number of seconds above 0, not {value!r}")
    # The policy's own number needs no check, and the settings must not be read yet.
    most = task.max_retries if task.sets_retry_numbers() else None
    if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
        raise ImproperlyConfigured(f"{task.name}: max_retries must be an integer or None, not {most!r}")
    for option in ("autoretry_for", "dont_autoretry_for", "throws"):
        for kind in getattr(task, option):
            if not (inspect.isclass(kind) and issubclass(kind, BaseException)):
                raise ImproperlyConfigured(f"{task.name}: {option} must name exception classes, not {kind!r}")


# --- models of Pydantic


def _add_models(task: Task) -> None:
    """Let a task with `pydantic=True` receive models as arguments, and return one: messages carry plain values."""
    if not task.pydantic:
        return
    inner = task.run

    @functools.wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        from pydantic import BaseModel

        hints = typing.get_type_hints(inspect.unwrap(inner))
        bound = inspect.signature(inner).bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kind = _model_of(hints.get(name), BaseModel)
            if kind is not None and isinstance(value, Mapping):
                bound.arguments[name] = kind.model_validate(value)
        result = inner(*bound.args, **bound.kwargs)
        return result.model_dump(mode="json") if isinstance(result, BaseModel) else result

    task.run = run  # type: ignore[method-assign]


def _model_of(hint: Any, base: type) -> Any:
    """The model that a type hint names, alone or beside None."""
    kinds = [hint, *typing.get_args(hint)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, base)), None)
