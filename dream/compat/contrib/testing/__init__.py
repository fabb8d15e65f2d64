"""Celery's `celery.contrib.testing`: an app, and a worker in the process of the tests."""
