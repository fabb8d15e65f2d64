"""The documented import paths of the Celery system: aliases of what lives in `dream.compat` and `dream.producer`."""

from dream.celery.app import celery_app

__all__ = ["celery_app"]
