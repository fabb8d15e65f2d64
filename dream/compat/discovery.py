"""What an app imports before its tasks can run: `imports`, `include`, and the `tasks` modules of its packages.

A web process imports its tasks where it uses them; a worker or a scheduler has to be told, and does so when it starts.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec

from dream.compat.exceptions import ImproperlyConfigured

__all__ = ["Discovery", "Packages"]

log = logging.getLogger(__name__)

#: Names of packages, a function that gives them, or None for Django's installed apps.
Packages = Iterable[str] | Callable[[], Iterable[str]] | None


class Discovery:
    """The modules that wait to be imported."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Packages, str | None]] = []

    def add(self, packages: Packages, related_name: str | None) -> None:
        """Remember the module `related_name` of each package, or the packages themselves where that is None."""
        self._waiting.append((packages, related_name))

    def run(self, modules: Iterable[str] = ()) -> None:
        """Import the modules, and everything that waits.

        Raises:
          ImproperlyConfigured: Django's apps are wanted, and there is no Django. What a module raises goes through.
        """
        if _is_django():
            _set_up_django()
        for module in modules:
            import_module(module)
        waiting, self._waiting = self._waiting, []
        for packages, related_name in waiting:
            for package in _names(packages):
                _import_related(package, related_name)


def _names(packages: Packages) -> Iterable[str]:
    if packages is None:
        return _django_apps()
    names = packages() if callable(packages) else packages
    return (names,) if isinstance(names, str) else tuple(names)


def _import_related(package: str, related_name: str | None) -> None:
    """Import the related module of a package, which need not have one."""
    package = _imported(package)
    if related_name is None:
        return
    related = f"{package}.{related_name}"
    try:
        import_module(related)
    except ModuleNotFoundError as error:
        if error.name != related:
            raise


def _imported(package: str) -> str:
    """Import a package, or the one whose configuration a class is, as in `shop.apps.ShopConfig`; returns its name."""
    try:
        return import_module(package).__name__
    except ModuleNotFoundError as error:
        module = package.rpartition(".")[0]
        if not module or error.name != package:
            raise
        return import_module(module).__package__ or module


def _is_django() -> bool:
    """Whether Django's settings are named or loaded. If so, models that tasks use need Django's apps."""
    conf = sys.modules.get("django.conf")
    if conf is not None and conf.settings.configured:
        return True
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


def _set_up_django() -> None:
    """Set Django up as `manage.py` does, and run its checks.

    Raises:
      ImproperlyConfigured: settings, models or URLs raise an error. Errors of imports go through.
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

    As in Celery, a failed check stops nothing; it is logged. An error that a check raises goes through.
    """
    checks = import_module("django.core.checks")
    for found in checks.run_checks():
        if found.is_serious() and not found.is_silenced():
            log.warning("a system check of Django failed; manage.py would not start: %s", found)


def _django_apps() -> Iterable[str]:
    try:
        apps = import_module("django.apps").apps
    except ModuleNotFoundError:
        raise ImproperlyConfigured(
            "autodiscover_tasks() looks for Django's apps: without Django name packages"
        ) from None
    if not apps.ready:
        import_module("django").setup()
    return [config.name for config in apps.get_app_configs()]
