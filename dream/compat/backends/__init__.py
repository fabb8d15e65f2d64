"""Celery's `celery.backends`. `dream.work.results` stores the results."""
