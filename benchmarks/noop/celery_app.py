"""Celery with its Redis transport and backend, as they come."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.noop.sending import send

__all__ = ["app", "ignored", "kept"]

app = Celery("noop", broker=os.environ["NOOP_REDIS"], backend=os.environ["NOOP_REDIS"])


@app.task(name="noop.ignored", ignore_result=True)
def ignored() -> None:
    """Nothing."""


@app.task(name="noop.kept")
def kept() -> None:
    """Nothing, and that is kept."""


if __name__ == "__main__":
    send({"ignored": ignored.delay, "kept": kept.delay})
