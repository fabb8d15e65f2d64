"""Celery's `celery.worker.state`: the names that callers read."""

from __future__ import annotations

from collections import deque

__all__ = ["revoked_stamps", "successful_requests"]

#: Always empty: there are no stamps.
revoked_stamps: dict[str, object] = {}
#: Ids of the last callers' tasks that have succeeded in this process; Celery keeps as many.
successful_requests: deque[str] = deque(maxlen=1000)
