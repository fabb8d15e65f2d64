"""Celery's `celery.contrib.testing.tasks`: the first task that a worker of tests runs."""

from __future__ import annotations

from typing import Any

from dream.compat.app.registry import shared_task

__all__ = ["ping"]


def _ping() -> str:
    """Return "pong": a worker runs tasks."""
    return "pong"


ping: Any = shared_task(name="celery.ping")(_ping)
