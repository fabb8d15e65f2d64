"""A PostgreSQL connection that closes itself if the server takes a statement and never answers.

The server's own limit (`statement_timeout`) works only in a running server, and TCP's limits only for a server that is
away. If a server is stopped, or a network drops all packets, libpq and its thread would wait for ever.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

__all__ = ["PatientConnection"]


class PatientConnection(psycopg.Connection[Any]):
    """A connection that closes itself if an answer takes longer than `no_answer_s`."""

    no_answer_s: float = 35.0

    def wait(self, gen: Generator[Any, Any, Any], *how: Any, **more: Any) -> Any:
        """Wait for an answer.

        Raises:
          psycopg.OperationalError: no answer came in time; the connection is closed.
        """
        return super().wait(self._answered_in_time(gen), *how, **more)

    def _answered_in_time(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        give_up = time.monotonic() + self.no_answer_s
        try:
            waits_for = next(gen)
            while True:
                # Psycopg calls this ten times a second, even if no data has come.
                ready = yield waits_for
                if not ready and time.monotonic() > give_up:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.no_answer_s:g} s")
                waits_for = gen.send(ready)
        except StopIteration as end:
            return end.value
