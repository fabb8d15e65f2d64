"""Find the app that `-A shop` names, as Celery does."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dream.compat.app.base import Celery
from dream.compat.conf import resolve
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.host import host

__all__ = ["finalize", "find_app", "look_here"]

#: Folders of code that imports for callers.
_NOT_A_CALLERS = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent))
_NAMES = ("app", "celery", "celery_app")


def find_app(name: str | None = None) -> Celery:
    """The app of that name, else of `DREAM_APP`, else the host's own.

    The name may be `shop`, `shop.celery` or `shop.celery:app`. The folder that the process started in is searched,
    too.

    A module's app is called `app`, `celery` or `celery_app`; a package's may be in its module `celery`.

    Raises:
      ImproperlyConfigured: there is none, or its module cannot be imported. Other errors of a module go through.
    """
    from dream.settings import load

    name = name or load().app
    if name is None:
        if not host().tasks:
            raise ImproperlyConfigured("no app is named: name one with --app, or in DREAM_APP")
        return host().default_app()
    look_here()
    with _mistakes_told(name):
        found = _app_in(resolve(name))
        if found is None and ":" not in name:
            found = _app_of_package(name)
    if found is None:
        raise ImproperlyConfigured(
            f"--app={name}: there is no app of dream.compat in it; name it, as in shop.celery:app"
        )
    return found


def finalize(app: Celery) -> None:
    """Import the modules with an app's tasks, so that it knows all of them.

    Raises:
      ImproperlyConfigured: one of them cannot be imported. Other errors of a module go through.
    """
    with _mistakes_told(app.main or "the app"):
        app.finalize()


def look_here() -> None:
    """Make modules in the folder that the process started in importable."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


@contextmanager
def _mistakes_told(name: str) -> Iterator[None]:
    """Turn an error of a caller's import, which is permanent, into one line with its place."""
    try:
        yield
    except SyntaxError as error:
        raise _cannot_be_loaded(name, error, f" in {error.filename}, line {error.lineno}", error.msg) from error
    except ImportError as error:
        raise _cannot_be_loaded(name, error, _place_of(error), str(error)) from error


def _cannot_be_loaded(name: str, error: Exception, place: str, reason: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} cannot be loaded: {type(error).__name__}{place}: {reason}")


def _place_of(error: ImportError) -> str:
    """The caller's line with the import; empty if dream imports a module that a setting names."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        is_callers = not frame.filename.startswith((*_NOT_A_CALLERS, "<"))
        if is_callers:
            return f" in {frame.filename}, line {frame.lineno}"
    return ""


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
