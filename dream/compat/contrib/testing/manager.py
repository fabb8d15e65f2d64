"""Celery's `celery.contrib.testing.manager`: what tests of tasks wait for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.compat import exceptions
from dream.compat.result import AsyncResult
from dream.results.states import STARTED, SUCCESS

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.control import Inspect

__all__ = ["Manager", "ManagerMixin", "Sentinel"]


class Sentinel(Exception):
    """What is waited for has not come."""


class ManagerMixin:
    """What a `Manager` can do, for a class that has an `app`."""

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
        """What `fun` returns, once it raises none of `catch`; after `max_retries` more calls its error is raised.

        Parameters:
          interval_start, interval_step, interval_max: seconds between two calls: the first, what is added, the longest.
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
        """Be sure that `fun` raises one of `catch` for some time.

        Raises:
          AssertionError: it did not.
        """
        how = {"max_retries": 20, "interval_step": 0.02, "interval_max": 1.0, **how}
        try:
            self.wait_for(fun, catch, **how)
        except tuple(catch):
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **how: Any) -> Any:
        """What a task returned, or several did.

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
                print(f"still waiting for {r}")  # noqa: T201 (for who watches the tests)
        raise AssertionError(f"Test failed: Missing task results: {r}")

    def inspect(self, timeout: float = 3.0) -> Inspect:
        """What asks workers."""
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
        """Throw away what waits, until nothing does, and wait until nothing runs."""
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
    """What tests of an app wait for.

    Parameters:
      app: whose tasks and workers they are.
    """

    def __init__(self, app: Celery, **_how: Any) -> None:
        self.app = app
