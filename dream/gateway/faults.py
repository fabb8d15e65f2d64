"""Errors as a client sees them: the right status and `{"error": "one clear sentence"}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dream.db.faults import explain
from dream.errors import (
    AcceptanceUnknown,
    AccessDenied,
    BucketMissing,
    DatabaseRefused,
    DatabaseUnavailable,
    DreamError,
    InvalidArguments,
    ObjectStoreUnavailable,
    OwnersQueryFailed,
    TablesMissing,
    TokenRejected,
    TooManyPending,
)
from dream.gateway.services import RETRY_AFTER_S
from dream.log import get_logger

__all__ = ["DATABASE_FAULTS", "HANDLERS", "log_fault", "sentence_of"]

log = get_logger(__name__)

#: What Starlette's own short details mean, said in a sentence.
_SENTENCES = {404: "there is nothing at this address", 405: "this address does not answer that method"}


#: Errors of a call to the database that has no result.
DATABASE_FAULTS = (SQLAlchemyError, DatabaseUnavailable)
_SEE_LOG = "the gateway's log says why"
#: The sentence for clients of each fault; the first that fits. The words of SQL and of the store are for the log.
_OF_FAULTS: Sequence[tuple[type[DreamError], str]] = (
    (OwnersQueryFailed, f"this site's query for a dream's owner fails; {_SEE_LOG}"),
    (TablesMissing, "the database is not set up for this release yet; nothing was changed, try again later"),
    (AcceptanceUnknown, "it is not known whether this was accepted; look before you try again"),
    (DatabaseRefused, f"the database answers with an error; nothing was changed, {_SEE_LOG}"),
    (DatabaseUnavailable, "the database does not answer; nothing was changed, try again later"),
    (AccessDenied, f"the object store refuses this site's credentials; nothing was changed, {_SEE_LOG}"),
    (BucketMissing, f"this site's bucket does not exist; nothing was changed, {_SEE_LOG}"),
    (ObjectStoreUnavailable, "the object store does not answer; nothing was changed, try again later"),
)


def sentence_of(error: Exception) -> str:
    """The sentence for clients about a fault of the database or the object store, without the words of these."""
    known = explain(error) if isinstance(error, SQLAlchemyError) else error
    return next(sentence for kind, sentence in _OF_FAULTS if isinstance(known, kind))


def log_fault(event: str, error: Exception, **fields: object) -> None:
    """Log a fault with the words of the database or the store."""
    said = explain(error) if isinstance(error, SQLAlchemyError) else error
    log.error(event, error=f"{type(error).__name__}: {said}", **fields)


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
    log_fault("server_fault", error, path=request.scope["path"])
    return _answer(503, sentence_of(error), {"Retry-After": str(RETRY_AFTER_S)})


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody reads this answer; its status is for the log.
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
    SQLAlchemyError: _unavailable,
    Exception: _unexpected,
}
