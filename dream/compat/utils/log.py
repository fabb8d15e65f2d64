"""`get_task_logger`: a logger for tasks, on the path where Celery has it.

It is an ordinary logger of that name. Lines that a task writes carry its id and name: the worker binds them to the
thread that runs it (`dream.log`).
"""

from __future__ import annotations

import logging

__all__ = ["get_logger", "get_task_logger"]

get_logger = get_task_logger = logging.getLogger
