"""The queue before the pool: jobs wait by group, so that one group's pictures do not make another's wait."""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Next is a job of the group with the fewest running jobs; among such groups, of the one that waits longest."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._running: Counter[str] = Counter()

    def __contains__(self, group: str) -> bool:
        """Whether the group has a job that waits or runs."""
        return group in self._waiting or group in self._running

    def join(self, group: str, job: T) -> None:
        """Put a job behind the others of its group."""
        self._waiting.setdefault(group, deque()).append(job)

    def leave(self, group: str, job: T) -> bool:
        """Remove a job if it waits; return whether it did."""
        if job not in self._waiting.get(group, ()):
            return False
        self._waiting[group].remove(job)
        if not self._waiting[group]:
            del self._waiting[group]
        return True

    def next(self) -> tuple[str, T] | None:
        """Take the next job, which runs from now on; None if none waits."""
        if not self._waiting:
            return None
        group = min(self._waiting, key=self._running.__getitem__)
        others = self._waiting.pop(group)
        job = others.popleft()
        if others:
            self._waiting[group] = others  # behind the other groups
        self._running[group] += 1
        return group, job

    def put_back(self, group: str, job: T) -> None:
        """Undo `next`."""
        self.ended(group)
        self._waiting.setdefault(group, deque()).appendleft(job)

    def ended(self, group: str) -> None:
        """A job of the group runs no more."""
        self._running[group] -= 1
        if not self._running[group]:
            del self._running[group]
