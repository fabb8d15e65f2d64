"""Celery's `celery.backends`, as far as callers import from it. `dream.results` keeps the results."""
