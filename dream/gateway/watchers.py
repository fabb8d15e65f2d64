"""The clients that watch a dream, by WebSocket or by event stream, and the rounds over all of them.

    Events ─ deliver ─► Watcher ─ bytes that were made once ─► transport
    Rounds ─ every second or so, a share of the watchers: expired tokens, silent peers, pings
           └ beside them: revoked tokens, one query for a share

A watcher is a small object without a task, a time-out or a queue while nothing happens.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from dream.gateway.faults import DATABASE_FAULTS, log_fault, sentence_of
from dream.gateway.snapshot import snapshot_text
from dream.log import get_logger
from dream.notifications.subscribe import Event
from dream.work.back_off import BackOff

if TYPE_CHECKING:
    from dream.gateway.auth import Authenticator, Identity
    from dream.gateway.limits import User
    from dream.gateway.services import Services
    from dream.settings import Settings

__all__ = [
    "GREETING",
    "MISTAKE",
    "MISTAKEN",
    "REJECTED",
    "TOO_SLOW",
    "TRY_LATER",
    "Ended",
    "Rounds",
    "Unread",
    "Watcher",
    "json_text",
]

GREETING = "connected; updates of this dream's images follow"
REJECTED = 4001
TOO_SLOW = 4008
TRY_LATER = 1013
MISTAKE, MISTAKEN = 1011, "the gateway made a mistake; connect again"
#: `DREAM_SOCKET_QUEUE_SIZE` counts messages of this size.
_MESSAGE_BYTES = 4096
#: A revoked token must end its watchers within a minute.
_LONGEST_ROUND_S = 45.0
_SHARES = 15
_JTIS_AT_ONCE = 500

log = get_logger(__name__)


class Ended(Exception):
    """The server ends a watcher.

    Parameters:
      code: the code of a WebSocket's close frame.
      reason: a sentence for the client.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def json_text(message: dict[str, Any]) -> str:
    """A message as JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


class Watcher:
    """One client that watches a dream. Its kinds say how bytes look and leave.

    While the client catches up, or while the database is read for it, new events wait.

    Parameters:
      services: of the process.
      dream_id: the dream.
      identity: of a checked token; the rounds check it again.
      user: counts the watcher.
    """

    __slots__ = ("_catching_up", "_place", "_services", "_waiting", "dream_id", "identity", "is_over", "user")

    def __init__(self, services: Services, dream_id: int, identity: Identity, user: User) -> None:
        self._services = services
        self.dream_id = dream_id
        self.identity = identity
        self.user = user
        self.is_over = False
        #: The last sent event, so that no event is sent twice.
        self._place: tuple[int, int] | None = None
        self._waiting: list[Event | None] | None = []
        self._catching_up: asyncio.Task[None] | None = None

    # --- of each kind

    def event_bytes(self, event: Event) -> bytes:
        """The bytes of an event, the same for all watchers of the kind."""
        raise NotImplementedError

    def text_bytes(self, text: str) -> bytes:
        """The bytes of another `image_update`."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes without waiting."""
        raise NotImplementedError

    def send_error(self, sentence: str) -> None:
        """Tell the client that the state cannot be read."""
        raise NotImplementedError

    def ping(self, now: float) -> None:
        """Send a ping."""
        raise NotImplementedError

    def end(self, code: int, reason: str) -> None:
        """End the connection."""
        raise NotImplementedError

    def cut(self) -> None:
        """Drop the connection of a dead peer."""
        raise NotImplementedError

    @property
    def unread_bytes(self) -> int:
        """Bytes that the client has not taken."""
        raise NotImplementedError

    def is_silent(self) -> bool:
        """Count one more round without a sign of life; return whether it was one too many."""
        return False

    # --- its life

    async def begin(self) -> str | None:
        """Subscribe; return the newest event's id. Events wait until `open`."""
        seq = await self._services.events.subscribe(self.dream_id, self)
        if self.is_over:  # the client left meanwhile
            self._services.events.unsubscribe(self.dream_id, self)
        return seq

    async def catch_up(self, since: str) -> AsyncIterator[None]:
        """Send the events after `since`, or the state from the database if they are not kept.

        It yields after each event: the caller waits until the client has taken it, because they may be many.
        """
        async for event in self._services.events.since(self.dream_id, since):
            if event is None:
                if not await self.send_snapshot():
                    self._waiting = [None, *(self._waiting or ())]  # `open` tries again
            else:
                self._send(event)
            yield
            if self.is_over:
                return

    def open(self) -> None:
        """Send the events that came meanwhile; from now on send each at once. One that has ended stays ended."""
        if not self.is_over:
            self._services.rounds.add(self)
            self._flush()

    def finish(self) -> None:
        """Leave the lists. A second call changes nothing."""
        if not self.is_over:
            self.is_over = True
            self._services.rounds.remove(self)
            self._services.events.unsubscribe(self.dream_id, self)
            self.user.sockets -= 1

    # --- events

    def deliver(self, event: Event) -> None:
        if self._waiting is None:
            self._send(event)
        else:
            self._wait(self._waiting, event)

    def miss(self) -> None:
        if self._waiting is None:
            self._waiting = []
            self._place = None  # Redis may have lost its newest entries
            self._catching_up = asyncio.create_task(self._recover())
        else:
            self._wait(self._waiting, None)

    def _wait(self, waiting: list[Event | None], event: Event | None) -> None:
        if len(waiting) >= self._services.settings.socket_queue_size:
            self._fall_behind()
        else:
            waiting.append(event)

    def _fall_behind(self) -> None:
        self.end(TOO_SLOW, "you read too slowly and fell too far behind; connect again with since")

    def _send(self, event: Event) -> None:
        if self._place is None or event.place > self._place:
            self._place = event.place
            self.send(self.event_bytes(event))

    def send(self, data: bytes) -> None:
        """Send bytes, or end a client that is too far behind."""
        if self.unread_bytes > self._services.settings.socket_queue_size * _MESSAGE_BYTES:
            self._fall_behind()
        else:
            self.write(data)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting or (), None
        for number, event in enumerate(waiting):
            if event is not None:
                self._send(event)
                continue
            self.miss()
            self._waiting = list(waiting[number + 1 :])
            return

    async def _recover(self) -> None:
        """Send the state as soon as the database has it. Events wait meanwhile, as many as a client may be behind."""
        back_off = BackOff(first_s=0.5)
        try:
            while not self.is_over and not await self.send_snapshot(tells_error=back_off.failures == 0):
                await asyncio.sleep(back_off.next_pause_s())
        except Exception:
            log.exception("snapshot_failed", dream_id=self.dream_id)
            self.end(MISTAKE, MISTAKEN)  # else events would wait for ever
        if not self.is_over:
            self._flush()

    async def send_snapshot(self, *, tells_error: bool = True) -> bool:
        """Send the dream's pictures from the database; returns whether they could be read.

        Parameters:
          tells_error: send an error if they could not.
        """
        try:
            async with self.user.turn:
                database, most = self._services.connections.database, self._services.settings.max_retries
                text = await run_in_threadpool(snapshot_text, database, self.dream_id, most)
        except DATABASE_FAULTS as error:
            log_fault("snapshot_failed", error, dream_id=self.dream_id)
            if tells_error:
                self.send_error(sentence_of(error))
            return False
        self.send(self.text_bytes(text))
        self._services.unread.add(self)
        return True


class Unread:
    """The watchers with unread bytes after a snapshot. A snapshot may be large, and each watcher has its own.

    Parameters:
      most_bytes: the most unread bytes of all of them together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._watchers: dict[Watcher, None] = {}

    def add(self, watcher: Watcher) -> None:
        """Count a watcher after its snapshot. Above the limit, cut those that have had unread bytes longest."""
        counted = (*self._watchers, watcher)
        self._watchers = {each: None for each in counted if each.unread_bytes and not each.is_over}
        over_bytes = sum(each.unread_bytes for each in self._watchers) - self._most_bytes
        for each in list(self._watchers):
            if over_bytes <= 0:
                return
            over_bytes -= each.unread_bytes
            log.warning("unread_data_dropped", dream_id=each.dream_id, bytes=each.unread_bytes)
            each.cut()


class Rounds:
    """Looks at every watcher of the process once in each ping interval, a share of them at a time.

    Parameters:
      settings: the interval.
      authenticator: knows the revoked tokens.
    """

    def __init__(self, settings: Settings, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._interval_s = min(settings.ping_interval_s, _LONGEST_ROUND_S)
        count = max(1, min(_SHARES, int(self._interval_s)))
        self._shares: list[set[Watcher]] = [set() for _ in range(count)]

    def add(self, watcher: Watcher) -> None:
        """Look at a watcher from the next round on."""
        min(self._shares, key=len).add(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Look at it no more. A second call changes nothing."""
        for share in self._shares:
            share.discard(watcher)

    async def run(self) -> None:
        """Do the rounds until the task is cancelled. Those that ask the database hold up no others."""
        await asyncio.gather(self._look_in_turn(self._look_at), self._look_in_turn(self._end_revoked))

    async def _look_in_turn(self, look: Callable[[Sequence[Watcher]], Awaitable[None]]) -> None:
        loop, number = asyncio.get_running_loop(), 0
        next_at = loop.time()
        while True:
            next_at = max(next_at + self._interval_s / len(self._shares), loop.time())
            await asyncio.sleep(next_at - loop.time())
            number = (number + 1) % len(self._shares)
            try:
                await look(list(self._shares[number]))
            except Exception:
                log.exception("round_failed")  # the next round must still check tokens

    async def _look_at(self, watchers: Sequence[Watcher]) -> None:
        now, now_s = datetime.now(UTC), time.time()
        for watcher in watchers:
            if watcher.identity.expires_at <= now:
                watcher.end(REJECTED, "the token has expired")
            elif watcher.is_silent():
                watcher.cut()
            else:
                watcher.ping(now_s)

    async def _end_revoked(self, watchers: Sequence[Watcher]) -> None:
        jtis = {watcher.identity.jti for watcher in watchers} - {None}
        revoked = await self._revoked([jti for jti in jtis if jti is not None])
        for watcher in watchers:
            if watcher.identity.jti in revoked and not watcher.is_over:
                watcher.end(REJECTED, "the token was revoked")

    async def _revoked(self, jtis: list[str]) -> set[str]:
        """Those of the ids that are revoked. A database that is away ends no watcher."""
        revoked: set[str] = set()
        try:
            for start in range(0, len(jtis), _JTIS_AT_ONCE):
                some = jtis[start : start + _JTIS_AT_ONCE]
                revoked |= await run_in_threadpool(self._authenticator.revoked_among, some)
        except DATABASE_FAULTS as error:
            log_fault("tokens_not_rechecked", error)
        return revoked
