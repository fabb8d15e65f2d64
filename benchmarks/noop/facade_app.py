"""The façade, used like Celery."""

from __future__ import annotations

from benchmarks.noop.sending import send
from dream.compat import Celery

__all__ = ["app", "ignored", "kept"]

app = Celery("noop")


@app.task(name="noop.ignored", ignore_result=True)
def ignored() -> None:
    """Do nothing."""


@app.task(name="noop.kept")
def kept() -> None:
    """Do nothing, and store the result."""


if __name__ == "__main__":
    send({"ignored": ignored.delay, "kept": kept.delay})
