"""What cuts across tasks, one feature a file, on Dramatiq's hooks."""
