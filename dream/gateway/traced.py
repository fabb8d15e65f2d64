"""A span around each HTTP request, if traces are on."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dream.observe import tracing

__all__ = ["Traced"]


class Traced:
    """See the module. Only a process that traces has this middleware.

    Parameters:
      is_trusted: the trace of the request's headers is continued. A stranger's is not: it may only be named by a link.
    """

    def __init__(self, app: ASGIApp, is_trusted: bool) -> None:
        self._app = app
        self._is_trusted = is_trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = None
        if scope["type"] == "http":
            headers = HTTPConnection(scope).headers
            request = tracing.serving(scope["method"], headers, is_trusted=self._is_trusted)
        if request is None:
            await self._app(scope, receive, send)
            return
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with request:
            try:
                await self._app(scope, receive, note_status)
            finally:
                request.answered(status, getattr(scope.get("route"), "path", None))
