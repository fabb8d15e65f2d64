"""Celery's `celery.utils.dispatch`: the class `Signal`, for a caller's own signals."""

from __future__ import annotations

from dream.compat.signals import Signal

__all__ = ["Signal"]
