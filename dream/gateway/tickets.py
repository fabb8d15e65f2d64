"""Issue tickets: each opens one socket or one stream of events, once, within 30 s.

A browser cannot send headers with a WebSocket or an EventSource. A ticket in the address is worthless when it is in a
log. Redis keeps it, so every gateway of a site knows it; the key has only its hash.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from dream.errors import TicketsUnavailable, TokenRejected
from dream.gateway.auth import Identity
from dream.work.redis_client import connect_async

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["TICKET_S", "Tickets"]

#: Seconds for which a ticket is valid.
TICKET_S = 30
_BYTES = 24
_TIMEOUT_S = 2.0
_CONNECTIONS = 4


class Tickets:
    """The tickets of a site. Use it on one event loop.

    Parameters:
      settings: the URL of Redis, and the prefix of its keys.
    """

    def __init__(self, settings: Settings) -> None:
        self._prefix = f"{settings.redis_prefix}:ticket:"
        self._client = connect_async(
            settings.events_url,
            max_connections=_CONNECTIONS,
            timeout_s=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            decode_responses=True,
        )

    async def issue(self, identity: Identity) -> str:
        """A new ticket for the user of a token.

        Raises:
          TicketsUnavailable: Redis does not answer.
        """
        ticket = secrets.token_urlsafe(_BYTES)
        said = {**asdict(identity), "expires_at": identity.expires_at.timestamp()}
        async with _explained():
            await self._client.set(self._key(ticket), json.dumps(said), ex=TICKET_S)
        return ticket

    async def redeem(self, ticket: str) -> Identity:
        """The user of a ticket, which is worthless from now on.

        Raises:
          TokenRejected: the ticket is unknown, was used, or is too old; or its token has expired meanwhile.
          TicketsUnavailable: Redis does not answer.
        """
        async with _explained():
            found = await self._client.getdel(self._key(ticket))
        if found is None:
            raise TokenRejected(f"the ticket is unknown, was used, or is older than {TICKET_S} s: get a new one")
        said = json.loads(found)
        expires_at = datetime.fromtimestamp(said["expires_at"], UTC)
        if expires_at <= datetime.now(UTC):
            raise TokenRejected("the token of the ticket has expired")
        return Identity(**{**said, "expires_at": expires_at})

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _key(self, ticket: str) -> str:
        return self._prefix + hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).hexdigest()


@asynccontextmanager
async def _explained() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise TicketsUnavailable(detail=str(error)) from error
