"""How a task's function is called: with models of Pydantic made from what came, where the task wants that."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream.compat.app.task import Task

__all__ = ["call", "dumped", "most_positional"]


def call(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call the task's function; of a task with `pydantic=True`, models in and plain values out."""
    if not task.pydantic:
        return task.run(*args, **kwargs)
    from pydantic import BaseModel

    hints = typing.get_type_hints(inspect.unwrap(task.run))
    bound = inspect.signature(task.run).bind(*args, **kwargs)
    for name, value in bound.arguments.items():
        kind = _model_of(hints.get(name), BaseModel)
        if kind is not None and isinstance(value, Mapping):
            bound.arguments[name] = kind.model_validate(value)
    result = task.run(*bound.args, **bound.kwargs)
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def dumped(args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """Arguments as a message carries them: of models of Pydantic their values."""
    from pydantic import BaseModel

    def plain(value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

    return [plain(each) for each in args or ()], {name: plain(each) for name, each in (kwargs or {}).items()}


def _model_of(hint: Any, base: type) -> Any:
    """The model that a hint is, or that it may be beside None."""
    kinds = [hint, *typing.get_args(hint)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, base)), None)


def most_positional(function: Callable[..., Any]) -> float:
    """How many positional arguments a function takes at most."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return math.inf
    return sum(1 for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))
