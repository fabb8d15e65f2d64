"""Middleware on Dramatiq's hooks, one feature a file. `dream.work.worker` has the list in order."""
