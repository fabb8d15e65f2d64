"""What `dramatiq dream.compat.worker.main` loads: dream's actors, and the tasks of the app that `DREAM_APP` names."""

from __future__ import annotations

from dream.compat.conf.adoption import adopt
from dream.compat.finding import finalize, find_app

__all__ = ["app", "broker", "tasks"]

app = find_app()
finalize(app)
adopt(app.conf)

from dream.actors import broker  # noqa: E402 (its settings are those that the app has been given)
from dream.compat.worker.actors import register  # noqa: E402

tasks = register(app)
