"""Celery's `celery.backends.base`: a class with which callers test whether an app has results."""

from __future__ import annotations

from typing import Any

from dream.compat.refused import BACKENDS, refuse_name
from dream.work.results import EXCEPTION_STATES, PROPAGATE_STATES, READY_STATES, UNREADY_STATES

__all__ = ["DisabledBackend"]


def __getattr__(name: str) -> Any:
    refuse_name("backends.base", BACKENDS, name)


class DisabledBackend:
    """The backend of an app without results, for `isinstance`. dream's apps always have results."""

    READY_STATES = READY_STATES
    UNREADY_STATES = UNREADY_STATES
    EXCEPTION_STATES = EXCEPTION_STATES
    PROPAGATE_STATES = PROPAGATE_STATES
