"""Celery's `celery.contrib.testing.manager`: waits for the states of tasks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.compat import exceptions
from dream.compat.result import AsyncResult
from dream.work.results import STARTED, SUCCESS

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.control import Inspect

__all__ = ["Manager", "ManagerMixin", "Sentinel"]


class Sentinel(Exception):
    """The awaited state has not come."""


class ManagerMixin:
    """The methods of a `Manager`, for a class that has an `app`."""

    app: Celery

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Sequence[type[BaseException]],
        desc: str = "thing",  # noqa: ARG002 (Celery's)
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        max_retries: int | None = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        **_how: Any,
    ) -> Any:
        """Call `fun` until it raises none of `catch`; after `max_retries` more calls its error is raised.

        Parameters:
          interval_start, interval_step, interval_max: the first pause between two calls, its growth, the longest, in s.
        """
        for number in itertools.count():
            try:
                return fun(*args, **(kwargs or {}))
            except tuple(catch):
                if max_retries is not None and number >= max_retries:
                    raise
            time.sleep(min(interval_start + number * interval_step, interval_max))
        return None

    def ensure_not_for_a_while(
        self, fun: Callable[..., Any], catch: Sequence[type[BaseException]], desc: str = "thing", **how: Any
    ) -> None:
        """Check for some time that `fun` raises one of `catch`.

        Raises:
          AssertionError: it returned.
        """
        how = {"max_retries": 20, "interval_step": 0.02, "interval_max": 1.0, **how}
        try:
            self.wait_for(fun, catch, **how)
        except tuple(catch):
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **how: Any) -> Any:
        """Wait for a task, or for several; return their values.

        Parameters:
          r: a result, or several.

        Raises:
          AssertionError: it has not ended in `max_retries` times the time-out of `get`.
        """
        if not isinstance(r, AsyncResult):
            return [self.join(each, propagate, max_retries, **how) for each in r]
        for _ in range(max_retries):
            try:
                return r.get(propagate=propagate, **how)
            except exceptions.TimeoutError:
                print(f"still waiting for {r}")  # noqa: T201 (for people who watch the tests)
        raise AssertionError(f"Test failed: Missing task results: {r}")

    def inspect(self, timeout: float = 3.0) -> Inspect:
        """An `Inspect` that asks workers."""
        return self.app.control.inspect(timeout=timeout)

    def assert_received(self, ids: Iterable[str], **policy: Any) -> Any:
        """Wait until workers have the tasks."""
        return self._assert(lambda: set(ids) <= self._held("reserved", "active"), **policy)

    def assert_accepted(self, ids: Iterable[str], **policy: Any) -> Any:
        """Wait until the tasks run."""
        return self._assert(lambda: set(ids) <= self._held("active"), **policy)

    def assert_result_tasks_in_progress_or_completed(self, async_results: Sequence[AsyncResult], **policy: Any) -> Any:
        """Wait until each task has started or succeeded."""
        return self._assert(lambda: all(each.state in (STARTED, SUCCESS) for each in async_results), **policy)

    def wait_until_idle(self) -> None:
        """Discard waiting messages until none is left, and wait until no task runs."""
        while self.app.control.purge():
            pass
        while self._held("active"):
            time.sleep(0.1)

    def _assert(self, holds: Callable[[], bool], **policy: Any) -> Any:
        def look() -> bool:
            if not holds():
                raise Sentinel
            return True

        return self.wait_for(look, (Sentinel,), **policy)

    def _held(self, *kinds: str) -> set[str]:
        return {task["id"] for kind in kinds for task in self._shown(kind)}

    def _shown(self, kind: str) -> Iterator[dict[str, Any]]:
        for tasks in (getattr(self.inspect(), kind)() or {}).values():
            yield from tasks


class Manager(ManagerMixin):
    """Waits in tests of an app.

    Parameters:
      app: the app of the tasks and workers.
    """

    def __init__(self, app: Celery, **_how: Any) -> None:
        self.app = app
