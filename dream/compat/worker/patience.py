"""What a run must tell a server that is away it tells it again, for a minute; then its message is for another run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import get_logger

__all__ = ["patiently"]

log = get_logger(__name__)

T = TypeVar("T")

_PATIENCE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


def patiently(call: Callable[[], T]) -> T:
    """What `call` returns; it is called again for as long as its server is away.

    Raises:
      BrokerUnavailable, ResultsUnavailable: the server was away for a minute.
      Exception: whatever else `call` raises, at once.
    """
    give_up, pause_s = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except (BrokerUnavailable, ResultsUnavailable) as error:
            if time.monotonic() >= give_up:
                raise
            log.warning("server_away", error=str(error))
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
