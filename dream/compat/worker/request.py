"""Celery's `celery.worker.request`."""

from __future__ import annotations

from dream.compat.app.context import Request

__all__ = ["Request"]
