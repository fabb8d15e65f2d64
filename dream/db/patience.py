"""A PostgreSQL connection that gives up on a server that takes statements and never answers.

The server's own limit (`statement_timeout`) needs a server that works, and TCP's limits one that is away. A server
that is stopped, or behind a network that swallows everything, is neither: libpq would wait for ever, and its thread
with it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, ClassVar

import psycopg

__all__ = ["PatientConnection"]


class PatientConnection(psycopg.Connection[Any]):
    """A connection that closes itself where an answer takes longer than `no_answer_s`."""

    #: A little more than `statement_timeout`, so that a server that works answers first.
    no_answer_s: ClassVar[float] = 35.0

    def wait(self, gen: Generator[Any, Any, Any], *how: Any, **more: Any) -> Any:
        """Wait for an answer.

        Raises:
          psycopg.OperationalError: none came in time; the connection is closed.
        """
        return super().wait(self._answered_in_time(gen), *how, **more)

    def _answered_in_time(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        give_up = time.monotonic() + self.no_answer_s
        try:
            waits_for = next(gen)
            while True:
                # Psycopg looks in ten times a second, also where nothing has come.
                ready = yield waits_for
                if not ready and time.monotonic() > give_up:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.no_answer_s:g} s")
                waits_for = gen.send(ready)
        except StopIteration as end:
            return end.value
