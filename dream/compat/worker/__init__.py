"""The workers' side of the façade: tasks that callers define run as Dramatiq messages."""
