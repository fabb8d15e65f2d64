"""Celery's `celery.contrib`: `abortable` and `django`; the rest is refused by name (`dream.compat.refused`)."""
