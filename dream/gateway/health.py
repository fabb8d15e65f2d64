"""`/healthz`: the process is up. `/readyz`: what it needs answers, too.

Strangers may ask at any rate while a server is away. So one answer serves all who ask within a second, one look serves
all who ask at the same moment, and each check has one thread of its own: requests keep theirs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError, RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.db import migrate
from dream.db.faults import explain
from dream.errors import DatabaseRefused, DatabaseUnavailable, DreamError, TablesMissing
from dream.gateway.faults import log_fault
from dream.gateway.services import RETRY_AFTER_S, services_of

if TYPE_CHECKING:
    from dream.db import Database
    from dream.notifications.subscribe import Events
    from dream.storage import Storage

__all__ = ["Readiness", "healthz", "readyz"]

_CHECK_TIMEOUT_S = 5.0
_KEPT_S = 1.0


async def healthz(_request: Request) -> Response:
    """The process is up."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 where the database (with this release's tables), Redis and bucket answer; else 503, naming the others."""
    faults = await services_of(request).readiness.faults()
    answers = {name: fault or "ok" for name, fault in faults.items()}
    away = [name for name, fault in faults.items() if fault]
    if not away:
        return JSONResponse({"status": "ok", **answers})
    return JSONResponse(
        {"status": "unavailable", "error": f"not ready: {', '.join(away)}", **answers},
        503,
        {"Retry-After": str(RETRY_AFTER_S)},
    )


class Readiness:
    """The faults of the servers behind one gateway process, as of the last second."""

    def __init__(self, database: Database, events: Events, storage: Storage) -> None:
        def look_at_tables() -> None:
            with database.read() as session:
                migrate.check(session)

        self._checks: dict[str, Callable[[], Awaitable[object]]] = {
            "database": _InOneThread(look_at_tables),
            "redis": events.ping,
            "bucket": _InOneThread(storage.ping),
        }
        self._found: asyncio.Task[dict[str, str | None]] | None = None
        self._found_at = 0.0

    async def faults(self) -> dict[str, str | None]:
        """The fault of each server, or None."""
        found = self._found
        if found is None or (found.done() and time.monotonic() - self._found_at > _KEPT_S):
            found = self._found = asyncio.create_task(self._look())
        # A client that goes away cancels its own wait, and not the look that others wait for.
        return await asyncio.shield(found)

    async def _look(self) -> dict[str, str | None]:
        faults = await asyncio.gather(*(_fault(name, check()) for name, check in self._checks.items()))
        self._found_at = time.monotonic()
        return dict(zip(self._checks, faults, strict=True))


class _InOneThread:
    """Runs a call that may hang. Everybody who asks meanwhile waits for that one call."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._running: asyncio.Future[None] | None = None

    def __call__(self) -> asyncio.Future[None]:
        if self._running is None or self._running.done():
            loop = asyncio.get_running_loop()
            self._running = loop.create_future()
            threading.Thread(target=self._run, args=(loop, self._running), name="readyz", daemon=True).start()
        return asyncio.shield(self._running)

    def _run(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[None]) -> None:
        error: Exception | None = None
        try:
            self._call()
        except Exception as raised:  # noqa: BLE001 (raised again where it is awaited)
            error = raised
        try:
            loop.call_soon_threadsafe(_settle, answer, error)
        except RuntimeError:  # the gateway has ended meanwhile
            return


def _settle(answer: asyncio.Future[None], error: Exception | None) -> None:
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
        answer.exception()  # taken as read: where nobody waits any more, asyncio would log it


async def _fault(name: str, check: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await check
    except TimeoutError:
        return "no answer in time"
    except (SQLAlchemyError, DreamError, RedisError) as error:
        log_fault("not_ready", error, what=name)
        return _told(explain(error) if isinstance(error, SQLAlchemyError) else error)
    return None


def _told(error: DreamError | RedisError) -> str:
    """The text that a stranger may read; the words of SQL and of Redis are in the log alone."""
    if isinstance(error, TablesMissing):
        return str(error)
    if isinstance(error, DatabaseRefused | AuthenticationError | ResponseError):
        return "it answers with an error; the gateway's log says why"
    if isinstance(error, DatabaseUnavailable | RedisError):
        return f"no answer ({type(error).__name__})"
    return error.for_owner
