"""Celery's `celery.registry`: the tasks of the current app by name."""

from __future__ import annotations

from typing import Any

from dream.compat.current import get_current_app
from dream.compat.local import Proxy

__all__ = ["tasks"]

tasks: Any = Proxy(lambda: get_current_app().tasks)
