"""A worker with a middleware of a project's own that hangs in the thread of the consumer of delayed messages."""

from __future__ import annotations

import sys
import threading

from dramatiq.middleware import Middleware

from dream import actors


class Hanging(Middleware):
    """Waits for an answer that never comes."""

    def before_delay_message(self, *_: object) -> None:
        threading.Event().wait()


if __name__ == "__main__":
    actors.broker.add_middleware(Hanging())
    sys.exit(actors.run())
