"""Retries of callers' tasks: `self.retry`, `autoretry_for`, and the wait before each.

A task that sets none of Celery's numbers follows dream's back-off: 60 s before the first retry, 1.5 times as long each
time, at most 600 s, five retries (`DREAM_RETRY_…`). A task that sets any of them gets Celery's defaults: `max_retries`
3, `default_retry_delay` 180 s, `retry_backoff` ×2 with full jitter.
"""

from __future__ import annotations

import functools
import inspect
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat.app.publishing import changed, jsonable
from dream.compat.envelope import Envelope
from dream.compat.exceptions import Ignore, ImproperlyConfigured, Retry
from dream.compat.failures import is_callers

if TYPE_CHECKING:
    from dream.compat.app.context import Context
    from dream.compat.app.task import Task

__all__ = ["NUMBERS", "PolicyNumber", "add_autoretry", "backoff_s", "check_endless", "retry"]

#: Celery's numbers of retries.
NUMBERS = (
    "max_retries",
    "default_retry_delay",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "retry_kwargs",
)
#: The shortest delay of endless retries, in seconds: without it, a task that fails at once would occupy its worker.
_LEAST_ENDLESS_S = 1.0


class PolicyNumber:
    """A task's attribute: the number of dream's back-off, or Celery's default if the task sets any of Celery's numbers.

    Parameters:
      setting: the field of `Settings` with dream's number.
      celerys: Celery's default.
    """

    def __init__(self, setting: str, celerys: int) -> None:
        self._setting, self._celerys = setting, celerys

    def __get__(self, task: Task | None, owner: type[Task]) -> Any:
        if task is None or task.sets_retry_numbers():
            return self._celerys
        from dream.settings import load

        return getattr(load(), self._setting)


def backoff_s(factor: int, retries: int, most_s: int, jitter: bool) -> int:
    """Celery's back-off in seconds: factor × 2ⁿ, at most `most_s`; jitter takes a random number from 0 to that."""
    delay_s: int = min(most_s, factor * 2**retries)
    return max(0, random.randrange(delay_s + 1) if jitter else delay_s)  # noqa: S311


def check_endless(task: Task) -> None:
    """Refuse a task that may be retried for ever without a pause.

    Raises:
      ImproperlyConfigured
    """
    if task.sets_retry_numbers() and task.max_retries is None and task.default_retry_delay < _LEAST_ENDLESS_S:
        raise ImproperlyConfigured(
            f"{task.name}: max_retries=None is endless, so default_retry_delay must be 1 s or more, "
            f"not {task.default_retry_delay!r}"
        )


def retry(
    task: Task,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    exc: BaseException | None,
    throw: bool,
    eta: Any,
    countdown: float | None,
    max_retries: int | None,
    options: Mapping[str, Any],
) -> Retry:
    """Send the task again, under the same id.

    Parameters:
      args, kwargs: in place of those of this run.
      exc: the reason; raised if no retry is left.
      throw: raise `Retry`, which ends this run; else it is returned.
      eta, countdown: the time of the next run; by default the back-off decides.
      max_retries: in place of the task's, for this run.
      options: others of `apply_async`.

    Raises:
      Retry
      MaxRetriesExceededError: no retry is left, and there is no `exc`.
    """
    request = task.request
    if request.called_directly:
        _raise(exc or Retry("the task can be retried"))
    if max_retries is not None:
        request.most_retries = max_retries
    most = task.max_retries if max_retries is None else max_retries
    if eta is None and countdown is None:
        countdown = _delay_s(task, request.retries)
    if most is not None and request.retries >= most:
        _raise(exc or _exceeded(task, request, most))
    if most is None and countdown is not None and countdown < _LEAST_ENDLESS_S:
        raise ImproperlyConfigured(
            f"{task.name}: max_retries=None is endless, so a retry must wait 1 s or more, not countdown={countdown!r}"
        )
    return _send(task, request, (args, kwargs), exc, throw, {**options, "eta": eta, "countdown": countdown})


def _send(
    task: Task, request: Context, arguments: Any, exc: BaseException | None, throw: bool, options: dict[str, Any]
) -> Retry:
    args, kwargs = _arguments(task, request, *arguments)
    sent = request.envelope or Envelope(task=task.name, id=request.id or "")  # tests push requests without one
    number = request.sent_retries
    branch = f"{sent.branch}.{request.retries + 1}-{number}" if number else sent.branch
    request.sent_retries += 1
    envelope = changed(replace(sent, retries=request.retries + 1, branch=branch), options, task.app)
    if not request.is_eager:  # a run in place bypasses JSON
        args, kwargs = jsonable(task.name, args), jsonable(task.name, kwargs)
    envelope = replace(envelope, args=args, kwargs=kwargs)
    again = Retry(
        exc=exc or sys.exc_info()[1],
        when=options["eta"] or options["countdown"],
        is_eager=request.is_eager,
        sig=envelope,
    )
    if request.delivered is not None:
        request.delivered.retry(again, envelope, keeps_place=options.get("priority") is None)
    if throw:
        raise again
    return again


def _exceeded(task: Task, request: Context, most: int) -> BaseException:
    return task.MaxRetriesExceededError(
        f"{task.name}[{request.id}] cannot be retried again: max_retries={most}, args={request.args}, "
        f"kwargs={request.kwargs}",
        task_args=request.args,
        task_kwargs=request.kwargs,
    )


def _delay_s(task: Task, retries: int) -> float:
    if task.sets_retry_numbers():
        delay_s: float = task.default_retry_delay
        return delay_s
    from dream.settings import load
    from dream.work.middleware.retries import RetryPolicy

    return RetryPolicy.of(load()).delay_s(retries)


def _arguments(task: Task, request: Context, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of the next run. A new argument replaces the old one of the same parameter, by place or by name."""
    if args is None and kwargs is not None and request.args:
        return _renamed(task, request.args, dict(kwargs))
    if kwargs is None and args is not None and request.kwargs:
        names = [each.name for each in _parameters(task)[: len(args)] if each.kind is each.POSITIONAL_OR_KEYWORD]
        kwargs = {name: value for name, value in request.kwargs.items() if name not in names}
    return request.args if args is None else args, request.kwargs if kwargs is None else kwargs


def _renamed(task: Task, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The arguments by place, in which new arguments by name replace those of the same parameters."""
    places = [
        kwargs.pop(each.name, value) if each.kind is each.POSITIONAL_OR_KEYWORD else value
        for each, value in zip(_parameters(task), args, strict=False)
    ]
    return (*places, *args[len(places) :]), kwargs


def _parameters(task: Task) -> list[inspect.Parameter]:
    """The parameters that an argument by place can fill."""
    parameters = inspect.signature(task.run).parameters.values()
    return [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _raise(exc: BaseException) -> NoReturn:
    """Raise an error; if another is being handled, name that as its cause."""
    current = sys.exc_info()[1]
    if current is exc or current is None:
        raise exc
    raise exc from current


# --- autoretry_for


def add_autoretry(task: Task) -> None:
    """Let the errors in the task's `autoretry_for` retry it."""
    if not task.autoretry_for:
        return
    inner = task.run
    wanted: tuple[type[BaseException], ...] = tuple(task.autoretry_for)
    unwanted: tuple[type[BaseException], ...] = (Ignore, Retry, *task.dont_autoretry_for)

    @functools.wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return inner(*args, **kwargs)
        except unwanted:
            raise
        except wanted as exc:
            if not is_callers(exc):  # an interrupt ends the run or the process
                raise
            raise task.retry(exc=exc, **_how(task)) from exc

    task.run = run  # type: ignore[method-assign]


def _how(task: Task) -> dict[str, Any]:
    how = dict(task.retry_kwargs)
    request = task.request
    if task.retry_backoff:
        factor = int(max(1.0, float(task.retry_backoff)))
        how["countdown"] = backoff_s(factor, request.retries, int(task.retry_backoff_max), bool(task.retry_jitter))
        if task.max_retries is None:
            # Jitter may give 0, which an endless retry may not have.
            how["countdown"] = max(_LEAST_ENDLESS_S, how["countdown"])
    if request.most_retries is not None:
        how["max_retries"] = request.most_retries
    return how
