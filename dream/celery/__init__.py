"""The documented import paths of the Celery system: aliases of objects beside them, in
`dream.compat` and in `dream.producer`."""

from dream.celery.app import celery_app

__all__ = ["celery_app"]
