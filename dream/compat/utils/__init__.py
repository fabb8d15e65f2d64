"""The path that Celery's callers import from; what is here belongs to `log` alone."""
