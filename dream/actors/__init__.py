"""The workers' side: `dramatiq dream.actors` (or `dream worker`) loads this and runs what is declared here.

The broker first, then what a worker process has of its own, then the actors.
"""

from __future__ import annotations

import dramatiq.broker

from dream.actors.lifetime import Lifetime
from dream.actors.resources import WorkerResources
from dream.broker import make_broker
from dream.errors import SettingsError
from dream.middleware.answering import Answering
from dream.middleware.claims import Claims
from dream.middleware.retries import Retries
from dream.middleware.time_limit import TimeLimit
from dream.middleware.unknown import Unknown
from dream.process import node_name
from dream.settings import load

__all__ = ["broker", "shared"]

try:
    _settings = load()
except SettingsError as error:
    raise SystemExit(f"dream: {error}") from None

broker = make_broker(_settings)
#: The resources that the actors of this process share.
shared = WorkerResources(_settings, broker)

_claims = Claims(_settings, shared.database, shared.publisher)
# Before a run: claim, then start the clock. After it: stop the clock, write the outcome, then decide on a retry.
broker.add_middleware(_claims, before=TimeLimit)
next(each for each in broker.middleware if isinstance(each, Retries)).ledger = _claims.ledger
broker.add_middleware(Lifetime(shared))
broker.add_middleware(Answering(_settings, node_name(_settings.worker_name)))
broker.add_middleware(Unknown(_settings))
# A host that runs a task here and now may use Dramatiq itself; its own broker stays.
if dramatiq.broker.global_broker is None:
    dramatiq.broker.set_broker(broker)

from dream.actors import images, tokens  # noqa: E402, F401 (actors need the broker above)
