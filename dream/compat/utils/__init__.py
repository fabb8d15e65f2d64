"""Celery's `celery.utils`: the names that callers import."""

from __future__ import annotations

from functools import cached_property
from uuid import uuid4

__all__ = ["cached_property", "gen_unique_id", "get_full_cls_name", "uuid"]


def uuid() -> str:
    """A new id for a task."""
    return str(uuid4())


def get_full_cls_name(klass: type) -> str:
    """The name of a class, with its module."""
    return f"{klass.__module__}.{klass.__name__}"


gen_unique_id = uuid
