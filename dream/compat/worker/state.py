"""Celery's `celery.worker.state`, as far as callers look into it; a worker keeps its own elsewhere."""

from __future__ import annotations

__all__ = ["revoked_stamps"]

#: There are no stamps, so none are revoked.
revoked_stamps: dict[str, object] = {}
