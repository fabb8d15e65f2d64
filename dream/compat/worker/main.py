"""The module for `dramatiq dream.compat.worker.main`: the host's actors, and the tasks of the app in `DREAM_APP`."""

from __future__ import annotations

from dream.compat.adoption import adopt
from dream.compat.finding import finalize, find_app
from dream.compat.host import host
from dream.compat.worker.actors import register

__all__ = ["app", "broker", "tasks"]

app = find_app()
finalize(app)
adopt(app.conf)

_worker = host().worker(app)  # it has the app's settings
broker = _worker.broker
tasks = register(app, _worker)
