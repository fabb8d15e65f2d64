"""The answer of `/readyz`: whether database, Redis and bucket answer.

Anybody may ask at any rate while a server is away. So one answer serves all requests within a second, one check serves
all simultaneous requests, and each check has a thread of its own, beside the threads of requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError, RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from dream.db import migrate
from dream.db.faults import explain
from dream.errors import DatabaseRefused, DatabaseUnavailable, DreamError, TablesMissing
from dream.gateway.faults import RETRY_AFTER_S, log_fault
from dream.gateway.refusals import Code

if TYPE_CHECKING:
    from dream.db import Database
    from dream.notifications.subscribe import Events
    from dream.storage import Storage

__all__ = ["Readiness"]

_CHECK_TIMEOUT_S = 5.0
_KEPT_S = 1.0


class Readiness:
    """Checks the servers of a gateway process at most once a second.

    Parameters:
      database, events, storage: the connections to check.
    """

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

    async def answer(self) -> Response:
        """200 if the database (with this release's tables), Redis and bucket answer; else 503 with the faults."""
        faults = await self._faults()
        answers = {name: fault or "ok" for name, fault in faults.items()}
        away = [name for name, fault in faults.items() if fault]
        if not away:
            return JSONResponse({"status": "ok", **answers})
        return JSONResponse(
            {
                "status": "unavailable",
                "error": f"not ready: {', '.join(away)}",
                "code": Code.NOT_READY.code,
                **answers,
            },
            Code.NOT_READY.status,
            {"Retry-After": str(RETRY_AFTER_S)},
        )

    async def _faults(self) -> dict[str, str | None]:
        found = self._found
        if found is None or (found.done() and time.monotonic() - self._found_at > _KEPT_S):
            found = self._found = asyncio.create_task(self._look())
        # A client that leaves cancels its own wait, not the check for others.
        return await asyncio.shield(found)

    async def _look(self) -> dict[str, str | None]:
        faults = await asyncio.gather(*(_fault(name, check()) for name, check in self._checks.items()))
        self._found_at = time.monotonic()
        return dict(zip(self._checks, faults, strict=True))


class _InOneThread:
    """Runs a call that may hang. Later callers wait for the same call until it returns."""

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
        except Exception as raised:  # noqa: BLE001 (the waiting coroutine raises it)
            error = raised
        try:
            loop.call_soon_threadsafe(_settle, answer, error)
        except RuntimeError:  # the gateway has ended
            return


def _settle(answer: asyncio.Future[None], error: Exception | None) -> None:
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
        answer.exception()  # marks it as read: asyncio logs an error that nobody awaits


async def _fault(name: str, check: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await check
    except TimeoutError:
        return "no answer in time"
    except (SQLAlchemyError, DreamError, RedisError) as error:
        log_fault("not_ready", error, what=name)
        return _for_strangers(explain(error) if isinstance(error, SQLAlchemyError) else error)
    return None


def _for_strangers(error: DreamError | RedisError) -> str:
    """The text for strangers; only the log has the words of SQL and Redis."""
    if isinstance(error, TablesMissing):
        return str(error)
    if isinstance(error, DatabaseRefused | AuthenticationError | ResponseError):
        return "it answers with an error; the gateway's log has the reason"
    if isinstance(error, DatabaseUnavailable | RedisError):
        return f"no answer ({type(error).__name__})"
    return error.for_owner
