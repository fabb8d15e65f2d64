"""`/healthz`: the process is up. `/readyz`: what it needs answers, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from anyio import to_thread
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.errors import DreamError
from dream.gateway.services import RETRY_AFTER_S, services_of
from dream.log import get_logger

__all__ = ["healthz", "readyz"]

_CHECK_TIMEOUT_S = 5.0

log = get_logger(__name__)


async def healthz(_request: Request) -> Response:
    """The process is up."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Database, Redis and bucket answer; else 503 that says which does not."""
    services = services_of(request)
    checks = {
        "database": to_thread.run_sync(services.database.ping, abandon_on_cancel=True),
        "redis": services.events.ping(),
        "bucket": to_thread.run_sync(services.storage.ping, abandon_on_cancel=True),
    }
    faults = dict(zip(checks, await asyncio.gather(*map(_fault, checks.values())), strict=True))
    answers = {name: fault or "ok" for name, fault in faults.items()}
    away = [name for name, fault in faults.items() if fault]
    if not away:
        return JSONResponse({"status": "ok", **answers})
    return JSONResponse(
        {"status": "unavailable", "error": f"not ready: {', '.join(away)}", **answers},
        503,
        {"Retry-After": str(RETRY_AFTER_S)},
    )


async def _fault(check: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await check
    except TimeoutError:
        return "no answer in time"
    except DreamError as error:
        log.warning("not_ready", error=str(error))
        return error.for_owner
    except (SQLAlchemyError, RedisError) as error:
        return f"no answer ({type(error).__name__})"
    return None
