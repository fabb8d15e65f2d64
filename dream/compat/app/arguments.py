"""Arguments and results of tasks with `pydantic=True`: models in the task's code, plain values in messages."""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream.compat.app.task import Task

__all__ = ["add_models", "dumped", "most_positional"]


def add_models(task: Task) -> None:
    """Let a task with `pydantic=True` receive models of its arguments, and return a model's values."""
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
