"""Celery with its transport and its Redis backend, as they come."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.noop.sending import send

__all__ = ["app", "ignored", "kept"]

app = Celery("noop", broker=os.environ["NOOP_BROKER"], backend=os.environ["NOOP_REDIS"])
# RabbitMQ's word that it has a message is waited for, as by the façade; Redis gives it anyway.
if os.environ.get("NOOP_CONFIRM", "yes") == "yes":
    app.conf.broker_transport_options = {"confirm_publish": True}


@app.task(name="noop.ignored", ignore_result=True)
def ignored() -> None:
    """Nothing."""


@app.task(name="noop.kept")
def kept() -> None:
    """Nothing, and that is kept."""


if __name__ == "__main__":
    send({"ignored": ignored.delay, "kept": kept.delay})
