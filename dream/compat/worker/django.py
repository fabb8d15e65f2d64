"""A worker's threads and Django: connections that are too old or broken are not used by the next run.

Django does so around each request of a web server; a task is none.
"""

from __future__ import annotations

import sys
from typing import Any

from dream.compat import signals

__all__ = ["care_for_connections"]


def care_for_connections() -> None:
    """Before and after each run close the database connections that Django would close; after it the caches too."""
    signals.task_prerun.connect(_close_old, dispatch_uid="dream.django")
    signals.task_postrun.connect(_close_all, dispatch_uid="dream.django")


def _close_old(sender: Any, **_named: Any) -> None:
    if _is_loaded("django.db") and not sender.request.is_eager:
        from django.db import close_old_connections

        close_old_connections()


def _close_all(sender: Any, **_named: Any) -> None:
    _close_old(sender)
    if _is_loaded("django.core.cache") and not sender.request.is_eager:
        from django.core.cache import close_caches

        close_caches()


def _is_loaded(module: str) -> bool:
    """Whether that part of Django is loaded and Django is configured: libraries import parts of it in any project."""
    conf = sys.modules.get("django.conf")
    return module in sys.modules and conf is not None and conf.settings.configured
