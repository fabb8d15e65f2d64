"""`get_task_logger`: a logger for tasks, on the path where Celery has it.

It is an ordinary logger of that name. Lines of a run carry the task's id and name, which the worker binds to its thread
(`dream.log`).
"""

from __future__ import annotations

import logging

__all__ = ["get_logger", "get_task_logger"]

get_logger = get_task_logger = logging.getLogger
