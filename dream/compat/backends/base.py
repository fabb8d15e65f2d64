"""Celery's `celery.backends.base`, as far as callers ask with it whether there are results."""

from __future__ import annotations

from typing import Any

from dream.compat.refused import BACKENDS, refuse_name
from dream.results.states import EXCEPTION_STATES, PROPAGATE_STATES, READY_STATES, UNREADY_STATES

__all__ = ["DisabledBackend"]


def __getattr__(name: str) -> Any:
    refuse_name("backends.base", BACKENDS, name)


class DisabledBackend:
    """The backend of an app without results. No app has it here: results are always kept."""

    READY_STATES = READY_STATES
    UNREADY_STATES = UNREADY_STATES
    EXCEPTION_STATES = EXCEPTION_STATES
    PROPAGATE_STATES = PROPAGATE_STATES
