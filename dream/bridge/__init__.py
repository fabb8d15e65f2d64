"""The bridge: messages that unmodified Celery producers have put into Redis or RabbitMQ are run by our workers.

    Celery's queue ─► taken: in flight (Redis) or unacked (RabbitMQ) ─► handed over ─► gone from there
                           │                                              ├─ a task of ours: through the producer, a row
                           └─ replayed at the next start                  ├─ an app's task: onto our queue, once
                                                                          └─ not understood: parked, with the reason

Handing over is idempotent: a task of ours by its id, an app's by (id, retries), what is parked by its bytes. So a
bridge that dies anywhere loses nothing and doubles nothing.
"""

from __future__ import annotations

from dream.bridge.handover import Moved
from dream.bridge.run import Bridge
from dream.bridge.sources import Source, open_source

__all__ = ["Bridge", "Moved", "Source", "open_source"]
