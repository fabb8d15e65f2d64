"""Find out who opens a connection: by a token or a ticket, wherever the client has put it.

Authorization: Bearer <JWT>                             every request, and sockets of programs
?ticket=<ticket>                                        sockets and streams of events, once
Sec-WebSocket-Protocol: dream.v1, dream.token.<JWT>     sockets; the answer echoes dream.v1 alone
?token=<JWT>                                            sockets
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.errors import TicketsUnavailable
from dream.gateway.answers import Ticket
from dream.gateway.auth import Identity, bearer_token, token_of
from dream.gateway.operations import Returns, operation
from dream.gateway.services import services_of
from dream.gateway.tickets import TICKET_S

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

__all__ = ["identify", "identity_shown", "new_ticket", "subprotocol_of"]

_PROTOCOL, _TOKEN_PROTOCOL = "dream.v1", "dream.token."


def subprotocol_of(connection: HTTPConnection) -> str | None:
    """The subprotocol that the server chooses. It is never the one with the token."""
    return _PROTOCOL if _PROTOCOL in connection.scope.get("subprotocols", ()) else None


async def identity_shown(connection: HTTPConnection) -> Identity | None:
    """The user of the head of a socket or of a stream; None if it brings neither token nor ticket.

    Raises:
      TokenRejected: the token or the ticket is not accepted, with the reason.
      TokenKeysUnavailable, TicketsUnavailable: it could not be checked.
    """
    services = services_of(connection)
    if ticket := connection.query_params.get("ticket"):
        return await services.tickets.redeem(ticket)
    token = _token_shown(connection)
    return await services.authenticator.identity_of(token) if token else None


def _token_shown(connection: HTTPConnection) -> str:
    if token := token_of(connection):
        return token
    if connection.scope["type"] != "websocket":
        return ""  # the address of a request is in too many logs
    for name in connection.scope.get("subprotocols", ()):
        if name.startswith(_TOKEN_PROTOCOL):
            return str(name.removeprefix(_TOKEN_PROTOCOL))
    return bearer_token(connection.query_params.get("token", ""))


async def identify(request: Request) -> Identity:
    """The user of a request by its `Authorization`. The request counts for this user.

    Raises:
      TokenRejected: the token is not accepted, with the reason.
      TokenKeysUnavailable: it could not be checked.
      HTTPException: 429 after too many requests.
    """
    services = services_of(request)
    identity = await services.authenticator.identity_of(token_of(request))
    services.limits.request(identity.user_id)
    return identity


@operation(
    "Get a ticket for a WebSocket or a stream of events",
    {201: Returns("the ticket, for one connection", Ticket)},
    refusals=(TicketsUnavailable,),
    access="user",
)
async def new_ticket(request: Request) -> Response:
    """Give the token's user a ticket, which opens one connection within 30 s."""
    identity = await identify(request)
    services = services_of(request)
    await run_in_threadpool(services.authenticator.confirm, identity)
    return JSONResponse({"ticket": await services.tickets.issue(identity), "expires_in_s": TICKET_S}, 201)
