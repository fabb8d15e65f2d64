"""The Celery-compatible app: its tasks, how they are sent, and how a run of one goes.

Task.apply_async ─► publishing ─► broker ─► worker.actors ─► trace ─► the caller's function
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.shared import shared_task

__all__ = ["Celery", "app_or_default", "default_app", "shared_task"]


def __getattr__(name: str) -> Any:
    """Loaded on demand: modules of this package import each other's neighbours."""
    if name == "Celery":
        from dream.compat.app.base import Celery

        return Celery
    if name == "shared_task":
        from dream.compat.app.shared import shared_task

        return shared_task
    if name in ("app_or_default", "default_app"):
        from dream.compat import current

        return current.app_or_default if name == "app_or_default" else current.current_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
