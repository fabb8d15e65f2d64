"""What cuts across tasks, one feature a file: middleware on Dramatiq's hooks, and what that stands on."""
