"""The bridge: move messages of unmodified Celery producers from Redis or RabbitMQ to dream's workers.

    Celery's queue ─► taken: in flight (Redis) or unacked (RabbitMQ) ─► handed over ─► gone from there
                           │                                              ├─ dream's own task: through the producer
                           └─ replayed at the next start                  ├─ an app's task: onto dream's queue, once
                                                                          └─ not understood: parked, with the reason

Handing over is idempotent: dream's own tasks by id, an app's by (id, retries), parked messages by their bytes. So a
bridge that dies anywhere loses nothing and doubles nothing.
"""

from __future__ import annotations

from dream.bridge.handover import Moved
from dream.bridge.run import Bridge, open_source
from dream.bridge.sources import Source

__all__ = ["Bridge", "Moved", "Source", "open_source"]
