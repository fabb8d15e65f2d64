"""What a run must tell a server that is away it tells it again, for a minute; then its message is for another run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dream import patience
from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import get_logger

__all__ = ["patiently"]

log = get_logger(__name__)

T = TypeVar("T")

_PATIENCE_S = 60.0


def patiently(call: Callable[[], T]) -> T:
    """What `call` returns; it is called again for as long as its server is away.

    Raises:
      BrokerUnavailable, ResultsUnavailable: the server was away for a minute.
      Exception: whatever else `call` raises, at once.
    """
    return patience.patiently(call, (BrokerUnavailable, ResultsUnavailable), told=_tell, patience_s=_PATIENCE_S)


def _tell(error: Exception, again_in_s: float) -> None:
    log.warning("server_away", error=str(error), again_in_s=again_in_s)
