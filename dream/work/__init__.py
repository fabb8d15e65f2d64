"""The task engine: Dramatiq, mended. It knows neither Celery's names nor pictures nor rows.

broker/      Redis and RabbitMQ
middleware/  retries, time limits, unknown tasks, answers to questions, Sentry
results      the end of each task, in Celery's form in Redis
worker       the middleware in order, and the loop of a worker process
connection   broker and results of a process that sends
"""
