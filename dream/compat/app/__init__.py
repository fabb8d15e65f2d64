"""The Celery-compatible app: its tasks, their messages, and their runs.

Task.apply_async ─► publishing ─► broker ─► worker.actors ─► trace ─► the caller's function
"""

from __future__ import annotations

from dream.compat.app.base import Celery
from dream.compat.app.registry import shared_task
from dream.compat.current import app_or_default
from dream.compat.current import current_app as default_app

__all__ = ["Celery", "app_or_default", "default_app", "shared_task"]
