"""dream: background image processing for web applications.

A web project may have a package `dream` of its own (a Django app, say): `extend_path` lets both share the name.
"""

from pkgutil import extend_path
from typing import Any

__path__ = extend_path(__path__, __name__)

from dream.version import __version__

__all__ = ["__version__", "current_app"]


def __getattr__(name: str) -> Any:
    """`from dream import current_app` gives the Celery-compatible app, loaded only when somebody asks for it."""
    if name == "current_app":
        from dream.celery.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
