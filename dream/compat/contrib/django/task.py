"""Celery's `DjangoTask`: every task has its `delay_on_commit` and `apply_async_on_commit`."""

from __future__ import annotations

from dream.compat.app.task import Task as DjangoTask

__all__ = ["DjangoTask"]
