"""`dream.celery.app.app`: the Celery-compatible app."""

from dream.celery.own import app

__all__ = ["app", "celery_app"]

celery_app = app
