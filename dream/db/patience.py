"""A PostgreSQL connection that gives up on a server that takes statements and never answers.

The server's own limit (`statement_timeout`) needs a server that works, and TCP's limits one that is away. A server
that is stopped, or behind a network that swallows everything, is neither: libpq would wait for ever, and its thread
with it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

__all__ = ["NO_ANSWER_S", "PatientConnection"]

#: A little more than `statement_timeout`, so that a server that works answers first.
NO_ANSWER_S = 35.0


class PatientConnection(psycopg.Connection[Any]):
    """A connection that closes itself where an answer takes longer than `NO_ANSWER_S`."""

    def wait(self, gen: Generator[Any, Any, Any], *how: Any, **more: Any) -> Any:
        """Wait for an answer.

        Raises:
          psycopg.OperationalError: none came in time; the connection is closed.
        """
        return super().wait(self._answered_in_time(gen), *how, **more)

    def _answered_in_time(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        give_up = time.monotonic() + NO_ANSWER_S
        try:
            waits_for = next(gen)
            while True:
                # Psycopg looks in ten times a second, also where nothing has come.
                ready = yield waits_for
                if not ready and time.monotonic() > give_up:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {NO_ANSWER_S:g} s")
                waits_for = gen.send(ready)
        except StopIteration as end:
            return end.value
