"""A worker's threads and Django: connections that are too old or broken are not used by the next run.

Django does so around each request of a web server; a task is none.
"""

from __future__ import annotations

import sys
from typing import Any

from dream.compat import signals

__all__ = ["care_for_connections"]


def care_for_connections() -> None:
    """Close what Django would, before and after each run; where nothing has loaded Django there is nothing to do."""
    if "django.db" in sys.modules:
        for signal in (signals.task_prerun, signals.task_postrun):
            signal.connect(_close_old, dispatch_uid="dream.django")


def _close_old(**_named: Any) -> None:
    from django.db import close_old_connections

    close_old_connections()
