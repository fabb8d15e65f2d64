"""Celery's `celery.contrib.testing.tasks`: what a worker of tests is asked first."""

from __future__ import annotations

from typing import Any

from dream.compat.app.shared import shared_task

__all__ = ["ping"]


def _ping() -> str:
    """Say that a worker is there."""
    return "pong"


ping: Any = shared_task(name="celery.ping")(_ping)
