"""Results as Celery's Redis backend keeps them: the real Celery reads ours, and we read its.

    key and channel   celery-task-meta-<task id>
    value, message    {"status", "result", "traceback", "children", "date_done", "task_id"}

Rows stay the truth of the tasks that have one; their end is said here as well.
"""

from __future__ import annotations

from dream.results.store import KEY_PREFIX, Meta, ResultStore, Waiter, meta_of

__all__ = ["KEY_PREFIX", "Meta", "ResultStore", "Waiter", "meta_of"]
