"""The root of a worker process: builds the broker, the resources and the middleware, then declares the actors.

`dream worker` calls `run`; `dramatiq dream.actors` loads the module and runs Dramatiq's own loop. `run` closes the
broker, and `Lifetime` everything else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import dramatiq.broker

from dream.actors.declared import declare
from dream.actors.lifetime import Lifetime
from dream.actors.resources import WorkerResources
from dream.errors import SettingsError
from dream.messages.registry import ALIASES
from dream.observe import tracing
from dream.runs.claims import Claims
from dream.runs.ledger import RowLedger
from dream.runs.sending import own_broker
from dream.settings import load
from dream.work import worker
from dream.work.process import EXIT_SETTINGS
from dream.work.worker import WorkerMiddleware

__all__ = ["broker", "claims", "middleware", "run", "shared"]

try:
    _settings = load()
    tracing.set_up(_settings, "dream-worker")
except SettingsError as error:
    sys.stderr.write(f"dream: {error}\n")
    raise SystemExit(EXIT_SETTINGS) from None

broker = own_broker(_settings)
#: The resources that the actors of this process share.
shared = WorkerResources(_settings, broker)
_results = shared.connections.results
_ledger = RowLedger(_settings, shared.connections)
middleware = WorkerMiddleware(_settings, _results, aliases=ALIASES, ledger=_ledger)
claims = Claims(_settings, shared.connections.database, _ledger, middleware.answering)
for _each in middleware.in_order(claims=[claims], others=[Lifetime(shared)]):
    broker.add_middleware(_each)
# An application that runs a task in its own process may use Dramatiq itself: its broker stays the global one.
if dramatiq.broker.global_broker is None:
    dramatiq.broker.set_broker(broker)

declare(broker, shared)


def run(*, queues: Iterable[str] = (), threads: int | None = None) -> int:
    """Work until a signal; returns the exit code. See `dream.work.worker.run`."""
    return worker.run(
        broker, _settings, middleware.limit, queues=queues, threads=threads, is_unfit=lambda: shared.is_unfit
    )
