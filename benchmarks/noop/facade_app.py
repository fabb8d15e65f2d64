"""The façade, as callers of Celery use it."""

from __future__ import annotations

from benchmarks.noop.sending import send
from dream.compat import Celery

__all__ = ["app", "ignored", "kept"]

app = Celery("noop")


@app.task(name="noop.ignored", ignore_result=True)
def ignored() -> None:
    """Nothing."""


@app.task(name="noop.kept")
def kept() -> None:
    """Nothing, and that is kept."""


if __name__ == "__main__":
    send({"ignored": ignored.delay, "kept": kept.delay})
