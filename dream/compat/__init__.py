"""The Celery façade: the names that code written for Celery calls, over the engine `dream.work`.

Import names from here instead of from `celery`; modules have Celery's names. Light to import: no Pillow,
Starlette, boto3, SQLAlchemy or Dramatiq before something is sent.
"""

from __future__ import annotations

from dream.compat import canvas, exceptions, schedules, signals, states
from dream.compat.app.base import Celery
from dream.compat.app.registry import shared_task
from dream.compat.app.task import Task
from dream.compat.canvas import (
    Signature,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    signature,
    subtask,
    xmap,
    xstarmap,
)
from dream.compat.current import current_app, current_task
from dream.compat.refused import install
from dream.compat.result import AsyncResult
from dream.compat.utils import uuid

__all__ = [
    "VERSION",
    "AsyncResult",
    "Celery",
    "Signature",
    "Task",
    "canvas",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "exceptions",
    "group",
    "maybe_signature",
    "schedules",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
]

#: The release of Celery whose names and behaviour these are: libraries ask for it.
VERSION = (5, 7, 0)
__version__ = ".".join(map(str, VERSION))

install()
