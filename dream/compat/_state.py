"""Celery's `celery._state`: the names that callers read."""

from __future__ import annotations

from dream.compat.current import current_app, current_task, get_current_app, set_current_app
from dream.compat.current import innermost_task as get_current_task

__all__ = ["current_app", "current_task", "get_current_app", "get_current_task", "set_default_app"]

set_default_app = set_current_app
