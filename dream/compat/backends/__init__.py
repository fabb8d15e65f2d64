"""Celery's `celery.backends`: what code asks results whether they are; where they are kept is `dream.results`."""
