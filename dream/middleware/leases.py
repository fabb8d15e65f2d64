"""Leases are renewed while their runs work, by one thread and one statement for all of a worker's runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from dream.db import tasks
from dream.db.faults import explain
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.db import Database

__all__ = ["LeaseKeeper"]

log = get_logger(__name__)

#: A renewal that hangs with its database does not keep a worker from its end.
_LEAVE_S = 2.0


class LeaseKeeper:
    """Renews the leases that it was given until they are taken back.

    Parameters:
      lease_s: how long a lease lives by the database's clock.
      renew_s: how often it is renewed.
    """

    def __init__(self, database: Database, lease_s: float, renew_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._lost: dict[str, threading.Event] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to renew, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Renew nothing more; waits 2 s at most for a renewal that hangs."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_LEAVE_S)

    def keep(self, token: str) -> threading.Event:
        """Renew this lease from now on; the event is set once another run has taken the task."""
        lost = self._lost[token] = threading.Event()
        return lost

    def drop(self, token: str) -> None:
        """Renew this lease no more."""
        self._lost.pop(token, None)

    def _run(self) -> None:
        while not self._stopped.wait(self._renew_s):
            tokens = dict(self._lost)
            if not tokens:
                continue
            try:
                with self._database.begin() as session:
                    held = tasks.renew(session, tokens, self._lease_s)
            except SQLAlchemyError as error:
                # The database is away; whether the leases still stand is seen at the next write.
                log.warning("leases_not_renewed", count=len(tokens), error=str(explain(error)))
                continue
            for token in tokens.keys() - held:
                tokens[token].set()
