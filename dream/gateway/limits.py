"""Limit each user of a gateway process: requests a second, sockets, and one heavy read at a time."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from dream.gateway.refusals import Code, Refused

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Bucket", "Limits", "User"]

#: A burst may have as many requests as the limit allows in this many seconds.
_BURST_S = 4
#: From this number of users on, idle ones are forgotten.
_REMEMBERED = 1000


class Bucket:
    """A token bucket.

    Parameters:
      per_s: the rate a second in the long run; 0 means no limit.
      at_once: the largest burst.
    """

    __slots__ = ("_at_once", "_filled_at", "_left", "_per_s")

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._left = at_once
        self._filled_at = time.monotonic()

    def take(self) -> bool:
        """Take one, and return whether one was left."""
        if not self._per_s:
            return True
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def owe(self, count: float) -> None:
        """Take `count` in any case; the bucket may go below zero, and refills from there."""
        self._left -= count if self._per_s else 0

    @property
    def wait_s(self) -> float:
        """Seconds until one is left."""
        self._fill()
        return 0.0 if not self._per_s or self._left >= 1 else (1 - self._left) / self._per_s

    @property
    def is_full(self) -> bool:
        self._fill()
        return not self._per_s or self._left >= self._at_once

    def _fill(self) -> None:
        now = time.monotonic()
        self._left = min(self._at_once, self._left + (now - self._filled_at) * self._per_s)
        self._filled_at = now


class User:
    """The buckets and sockets of one user."""

    def __init__(self, settings: Settings) -> None:
        requests, statuses = settings.max_requests_per_user_s, settings.max_status_requests_per_user_s
        self.requests = Bucket(requests, requests * _BURST_S)
        self.statuses = Bucket(statuses, statuses * _BURST_S)
        self.sockets = 0
        #: Locked while many pictures are read, so that a user reads them by one request or socket at a time.
        self.turn = asyncio.Lock()

    @property
    def is_idle(self) -> bool:
        return not self.sockets and not self.turn.locked() and self.requests.is_full and self.statuses.is_full


class Limits:
    """The users of one process. Use it on one event loop.

    Parameters:
      settings: the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._users: dict[int, User] = {}
        self._forget_at = _REMEMBERED
        self.most_sockets = settings.max_sockets_per_user or max(1, settings.max_connections // 2)

    def of(self, user_id: int) -> User:
        """The user of a checked token."""
        user = self._users.get(user_id)
        if user is None:
            if len(self._users) >= self._forget_at:
                self._forget_idle()
            user = self._users[user_id] = User(self._settings)
        return user

    def request(self, user_id: int) -> None:
        """Count a request.

        Raises:
          Refused: 429 after too many requests.
        """
        user = self.of(user_id)
        if not user.requests.take():
            raise Refused(
                Code.TOO_MANY_REQUESTS,
                f"you send more than {self._settings.max_requests_per_user_s} requests a second; try again later",
                {"Retry-After": str(math.ceil(user.requests.wait_s))},
            )

    def admit(self, user_id: int) -> User | None:
        """Count one more socket or stream of a user, and return the user; None if it would be above the limit.

        The caller subtracts it from `sockets` at its end.
        """
        user = self.of(user_id)
        if user.sockets >= self.most_sockets:
            return None
        user.sockets += 1
        return user

    def _forget_idle(self) -> None:
        """Forget users without a recent request, a socket or a read."""
        self._users = {user_id: user for user_id, user in self._users.items() if not user.is_idle}
        self._forget_at = max(_REMEMBERED, 2 * len(self._users))
