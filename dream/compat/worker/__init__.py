"""The façade in a worker: callers' own tasks run as actors of Dramatiq."""
