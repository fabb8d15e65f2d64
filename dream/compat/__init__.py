"""The Celery façade: what code written for Celery calls, thin over our producer.

Light to import: no Pillow, Starlette, boto3 or SQLAlchemy before something is sent.
"""

from __future__ import annotations

from dream.compat.app import Celery
from dream.compat.result import AsyncResult
from dream.compat.task import Task

__all__ = ["AsyncResult", "Celery", "Task"]
