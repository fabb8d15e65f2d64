"""Celery's `celery.utils.dispatch`: the class of signals, for signals of a caller's own."""

from __future__ import annotations

from dream.compat.signals import Signal

__all__ = ["Signal"]
