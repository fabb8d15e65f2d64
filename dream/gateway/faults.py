"""Errors as a client sees them: the right status and `{"error": "one clear sentence"}`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dream.errors import (
    AccessDenied,
    BucketMissing,
    DatabaseUnavailable,
    InvalidArguments,
    ObjectStoreUnavailable,
    TokenRejected,
    TooManyPending,
)
from dream.gateway.services import RETRY_AFTER_S
from dream.log import get_logger

__all__ = ["HANDLERS"]

log = get_logger(__name__)

#: What Starlette's own short details mean, said in a sentence.
_SENTENCES = {404: "there is nothing at this address", 405: "this address does not answer that method"}


def _answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (narrowing: registered for this class only)
    is_bare = error.detail == HTTPStatus(error.status_code).phrase
    text = _SENTENCES.get(error.status_code, error.detail) if is_bare else error.detail
    return _answer(error.status_code, text, error.headers)


async def _rejected(_request: Request, error: Exception) -> Response:
    return _answer(401, str(error), {"WWW-Authenticate": "Bearer"})


async def _invalid(_request: Request, error: Exception) -> Response:
    return _answer(400, str(error))


async def _too_many(_request: Request, error: Exception) -> Response:
    return _answer(429, str(error), {"Retry-After": str(RETRY_AFTER_S)})


async def _unavailable(request: Request, error: Exception) -> Response:
    log.error("server_away", path=request.url.path, error=f"{type(error).__name__}: {error}")
    what = "the database" if isinstance(error, DatabaseUnavailable | SQLAlchemyError) else "the object store"
    text = f"{what} does not answer; nothing was changed, try again later"
    return _answer(503, text, {"Retry-After": str(RETRY_AFTER_S)})


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody reads it; the line of the request has its status.
    return _answer(400, "the connection ended before the request was whole")


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # Starlette raises it again, and the server logs it with its traceback.
    return _answer(500, "something went wrong here; it was noted")


HANDLERS: Mapping[Any, Any] = {
    HTTPException: _http,
    ClientDisconnect: _gone,
    TokenRejected: _rejected,
    InvalidArguments: _invalid,
    TooManyPending: _too_many,
    AccessDenied: _unavailable,
    BucketMissing: _unavailable,
    DatabaseUnavailable: _unavailable,
    ObjectStoreUnavailable: _unavailable,
    InterfaceError: _unavailable,
    OperationalError: _unavailable,
    PoolTimeout: _unavailable,
    Exception: _unexpected,
}
