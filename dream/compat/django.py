"""Django beside an app: its setup and checks before tasks are imported, and its connections around each run.

Django closes database connections that are too old or broken around each request of a web server. A task is no request,
so a worker closes them around each run.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dream.compat import signals
from dream.compat.exceptions import ImproperlyConfigured

__all__ = ["care_for_connections", "installed_apps", "is_django", "set_up"]

log = logging.getLogger(__name__)


def is_django() -> bool:
    """Whether Django's settings are named or loaded; then models that tasks use need Django's apps."""
    conf = sys.modules.get("django.conf")
    if conf is not None and conf.settings.configured:
        return True
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


def set_up() -> None:
    """Set Django up as `manage.py` does, and run its checks.

    Raises:
      ImproperlyConfigured: settings, models or URLs raise an error. Errors of imports are raised as they are.
    """
    try:
        import_module("django").setup()
        if not os.environ.get("CELERY_SKIP_CHECKS"):
            _run_checks()
    except (ImportError, SyntaxError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        frame = next(each for each in reversed(frames) if not each.filename.startswith("<"))
        place = f"{frame.filename}, line {frame.lineno}"
        raise ImproperlyConfigured(f"Django cannot be set up: {type(error).__name__} in {place}: {error}") from error


def _run_checks() -> None:
    """Run Django's system checks: they import the URLconf, and with it tasks that only views import.

    As in Celery, a failed check stops nothing; it is logged. An error that a check raises is not caught.
    """
    checks = import_module("django.core.checks")
    for found in checks.run_checks():
        if found.is_serious() and not found.is_silenced():
            log.warning("a system check of Django failed; manage.py would not start: %s", found)


def installed_apps() -> Iterable[str]:
    try:
        apps = import_module("django.apps").apps
    except ModuleNotFoundError:
        raise ImproperlyConfigured(
            "autodiscover_tasks() looks for Django's apps: without Django name packages"
        ) from None
    if not apps.ready:
        import_module("django").setup()
    return [config.name for config in apps.get_app_configs()]


# --- connections


def care_for_connections() -> None:
    """Close the database connections that Django would close before and after each run; after it, the caches, too."""
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
    """Whether that part of Django is loaded and Django is configured: libraries also import parts without a project."""
    conf = sys.modules.get("django.conf")
    return module in sys.modules and conf is not None and conf.settings.configured
