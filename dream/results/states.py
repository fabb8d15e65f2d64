"""Celery's states of a task, and what they mean together."""

from __future__ import annotations

__all__ = [
    "EXCEPTION_STATES",
    "FAILURE",
    "PENDING",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
]

#: Not known, or waiting.
PENDING = "PENDING"
#: Known to a worker; Celery's events have it, results do not.
RECEIVED = "RECEIVED"
STARTED = "STARTED"
#: Failed, and about to run again.
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"

#: The task has ended.
READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, RETRY})
#: The result is an error.
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
#: The result is an error that `get` raises.
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
