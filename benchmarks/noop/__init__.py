"""A task that does nothing, three times: for Dramatiq, for the façade and for Celery."""
