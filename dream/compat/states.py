"""Celery's `celery.states`: the states of a task."""

from __future__ import annotations

from dream.work.results import (
    EXCEPTION_STATES,
    FAILURE,
    PENDING,
    PROPAGATE_STATES,
    READY_STATES,
    RECEIVED,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    UNREADY_STATES,
)

__all__ = [
    "ALL_STATES",
    "EXCEPTION_STATES",
    "FAILURE",
    "IGNORED",
    "PENDING",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "REJECTED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
    "precedence",
    "state",
]

REJECTED = "REJECTED"
IGNORED = "IGNORED"
ALL_STATES = READY_STATES | UNREADY_STATES
#: From the last to the first; None stands for a state of a task's own.
_PRECEDENCE = (SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)


def precedence(name: str) -> int:
    """The place of a state in the order of states; the last is 0."""
    return _PRECEDENCE.index(name if name in _PRECEDENCE else None)


class state(str):  # noqa: N801 (Celery's name)
    """A state that can be compared: a later state is greater."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
