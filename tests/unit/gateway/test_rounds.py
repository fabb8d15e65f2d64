"""The rounds over all watchers: pings, silent peers, and tokens that have ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from dream.gateway.auth import Identity
from dream.gateway.watchers import Rounds
from dream.settings import Settings


class Peer:
    """A watcher that notes what happens to it."""

    is_over = False

    def __init__(self, jti: str, lasts_s: float = 60) -> None:
        self.identity = Identity("5", datetime.now(UTC) + timedelta(seconds=lasts_s), jti)
        self.pings = 0

    def is_silent(self) -> bool:
        return False

    def ping(self, _now: float) -> None:
        self.pings += 1

    def end(self, _code: int, reason: str) -> None:
        self.is_over, self.reason = True, reason


class Revoked:
    """Knows one revoked token. It answers only while it is open."""

    def __init__(self) -> None:
        self.is_open = threading.Event()

    def revoked_among(self, jtis: Collection[str]) -> set[str]:
        assert self.is_open.wait(20)
        return {"revoked"} & set(jtis)


def test_a_hung_database_stops_no_ping_and_keeps_no_expired_token() -> None:
    """Proxies cut a socket without pings. A revoked token ends its watchers once the database answers."""

    async def go_round() -> None:
        tokens = Revoked()
        rounds = Rounds(Settings(ping_interval_s=0.05), cast("Any", tokens))
        live, expiring, revoked = Peer("live"), Peer("expiring", lasts_s=0.3), Peer("revoked")
        for peer in (live, expiring, revoked):
            rounds.add(cast("Any", peer))
        going = asyncio.create_task(rounds.run())
        try:
            async with asyncio.timeout(20):
                while live.pings < 10 or not expiring.is_over:
                    await asyncio.sleep(0.001)
                assert not revoked.is_over
                tokens.is_open.set()
                while not revoked.is_over:
                    await asyncio.sleep(0.001)
        finally:
            tokens.is_open.set()
            going.cancel()
            with suppress(asyncio.CancelledError):
                await going
        assert (expiring.reason, revoked.reason) == ("the token has expired", "the token was revoked")
        assert not live.is_over

    asyncio.run(go_round())
