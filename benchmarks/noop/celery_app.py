"""Celery with its default transport and its Redis backend."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.noop.sending import send

__all__ = ["app", "ignored", "kept"]

app = Celery("noop", broker=os.environ["NOOP_BROKER"], backend=os.environ["NOOP_REDIS"])
# Wait for RabbitMQ's confirm of each message, as the façade does; Redis always confirms.
if os.environ.get("NOOP_CONFIRM", "yes") == "yes":
    app.conf.broker_transport_options = {"confirm_publish": True}


@app.task(name="noop.ignored", ignore_result=True)
def ignored() -> None:
    """Do nothing."""


@app.task(name="noop.kept")
def kept() -> None:
    """Do nothing, and store the result."""


if __name__ == "__main__":
    send({"ignored": ignored.delay, "kept": kept.delay})
