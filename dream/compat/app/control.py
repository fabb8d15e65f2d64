"""Celery's `celery.app.control`."""

from __future__ import annotations

from dream.compat.control import Control, Inspect

__all__ = ["Control", "Inspect"]
