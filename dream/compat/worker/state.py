"""Celery's `celery.worker.state`, as far as callers look into it; a worker keeps its own elsewhere."""

from __future__ import annotations

from collections import deque

__all__ = ["revoked_stamps", "successful_requests"]

#: There are no stamps, so none are revoked.
revoked_stamps: dict[str, object] = {}
#: Ids of callers' tasks that have succeeded in this process, the last of them, as many as Celery keeps.
successful_requests: deque[str] = deque(maxlen=1000)
