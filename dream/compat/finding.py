"""Which app `-A shop` means, as Celery finds it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dream.compat.app import Celery
from dream.compat.conf.sources import resolve
from dream.compat.exceptions import ImproperlyConfigured

__all__ = ["find_app", "look_here"]

_NAMES = ("app", "celery", "celery_app")


def find_app(name: str | None = None) -> Celery:
    """The app of that name, else of `DREAM_APP`, else dream's own.

    It may be called `shop`, `shop.celery` or `shop.celery:app`; the folder that the process started in is looked into
    too.

    A module's app is called `app`, `celery` or `celery_app`; a package's may be in its module `celery`.

    Raises:
      ImproperlyConfigured: there is none. What a module raises goes through.
    """
    from dream.settings import load

    name = name or load().app
    if name is None:
        from dream.compat.tasks import app

        return app
    look_here()
    found = _app_in(resolve(name))
    if found is None and ":" not in name:
        found = _app_of_package(name)
    if found is None:
        raise ImproperlyConfigured(
            f"--app={name}: there is no app of dream.compat in it; name it, as in shop.celery:app"
        )
    return found


def look_here() -> None:
    """Let modules of the folder that the process started in be imported."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def _app_of_package(name: str) -> Celery | None:
    try:
        return _app_in(import_module(f"{name}.celery"))
    except ModuleNotFoundError as error:
        if error.name not in (f"{name}.celery", name):
            raise
        return None


def _app_in(found: Any) -> Celery | None:
    if isinstance(found, Celery):
        return found
    if not isinstance(found, ModuleType):
        return None
    named = [getattr(found, name, None) for name in _NAMES]
    return next((each for each in (*named, *vars(found).values()) if isinstance(each, Celery)), None)
