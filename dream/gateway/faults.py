"""Turn errors into answers: the status, and `{"error": "one clear sentence", "code": "for programs"}`."""

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
    BlacklistMissing,
    BucketMissing,
    DatabaseRefused,
    DatabaseUnavailable,
    DreamError,
    InvalidArguments,
    KeyReused,
    ObjectStoreUnavailable,
    OwnersQueryFailed,
    QuotaExceeded,
    Reason,
    RetryRefused,
    TablesMissing,
    TicketsUnavailable,
    TokenKeysUnavailable,
    TokenRejected,
    TooManyPending,
    UploadUnknown,
)
from dream.gateway.refusals import Code, Refused, code_of_status
from dream.log import get_logger

__all__ = ["DATABASE_FAULTS", "HANDLERS", "RETRY_AFTER_S", "SERVER_FAULTS", "STATUSES", "log_fault", "sentence_of"]

log = get_logger(__name__)

#: The time after which a client may repeat a request that met an unreachable server or a limit.
RETRY_AFTER_S = 5
#: Sentences in place of Starlette's own short texts.
_SENTENCES = {404: "there is nothing at this address", 405: "this address does not accept that method"}
#: Errors of a call to the database.
DATABASE_FAULTS = (SQLAlchemyError, DatabaseUnavailable)
_SEE_LOG = "the gateway's log says why"
#: The sentence of each fault for clients; the first match counts. The words of SQL and the object store go to the log.
_OF_FAULTS: Sequence[tuple[type[DreamError], str]] = (
    (OwnersQueryFailed, f"this site's query for a dream's owner fails; {_SEE_LOG}"),
    (BlacklistMissing, f"this site's tables of revoked tokens are missing; {_SEE_LOG}"),
    (TablesMissing, "the database is not set up for this release yet; nothing was changed, try again later"),
    (AcceptanceUnknown, "it is unknown whether this was accepted; look before you try again"),
    (DatabaseRefused, f"the database answers with an error; nothing was changed, {_SEE_LOG}"),
    (DatabaseUnavailable, "the database does not answer; nothing was changed, try again later"),
    (AccessDenied, f"the object store refuses this site's credentials; nothing was changed, {_SEE_LOG}"),
    (BucketMissing, f"this site's bucket does not exist; nothing was changed, {_SEE_LOG}"),
    (TicketsUnavailable, "Redis does not answer, so there are no tickets; try again later, or send the token"),
    (TokenKeysUnavailable, "the keys that check tokens were not read yet; try again later"),
    (ObjectStoreUnavailable, "the object store does not answer; nothing was changed, try again later"),
)


def sentence_of(error: Exception) -> str:
    """The sentence for clients about a fault of the database or the object store, without the server's words."""
    known = explain(error) if isinstance(error, SQLAlchemyError) else error
    return next(sentence for kind, sentence in _OF_FAULTS if isinstance(known, kind))


def log_fault(event: str, error: Exception, **fields: object) -> None:
    """Log a fault with the words of the database or the object store."""
    known = explain(error) if isinstance(error, SQLAlchemyError) else error
    log.error(event, error=f"{type(error).__name__}: {known}", **fields)


def _answer(status: int, text: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": text, "code": code}, status, headers)


def _code_of(error: Exception) -> str:
    known = explain(error) if isinstance(error, SQLAlchemyError) else error
    return known.code if isinstance(known, DreamError) else Reason.INTERNAL_ERROR.code


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (narrowing: registered for this class only)
    is_bare = error.detail == HTTPStatus(error.status_code).phrase
    text = _SENTENCES.get(error.status_code, error.detail) if is_bare else error.detail
    code = error.code if isinstance(error, Refused) else code_of_status(error.status_code)
    return _answer(error.status_code, text, code, error.headers or _HEADERS.get(error.status_code))


async def _of_dream(_request: Request, error: Exception) -> Response:
    """The answer to an error of dream's own whose sentence is for clients."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return _answer(status, str(error), _code_of(error), _HEADERS.get(status))


async def _unavailable(request: Request, error: Exception) -> Response:
    log_fault("server_fault", error, path=request.scope["path"])
    return _answer(503, sentence_of(error), _code_of(error), _HEADERS[503])


async def _gone(_request: Request, _error: Exception) -> Response:
    # The client is gone; the status is for the log.
    reason = Code.REQUEST_MALFORMED
    return _answer(reason.status, "the connection ended before the request was whole", reason.code)


async def _unexpected(_request: Request, error: Exception) -> Response:
    # Starlette raises the error again, and the server logs it with its traceback.
    return _answer(500, "an unexpected error happened; it is logged", _code_of(error))


_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(RETRY_AFTER_S)},
    503: {"Retry-After": str(RETRY_AFTER_S)},
}
#: The statuses of errors whose sentences are for clients.
STATUSES: Mapping[type, int] = {
    TokenRejected: 401,
    InvalidArguments: 400,
    KeyReused: 422,
    UploadUnknown: 404,
    TooManyPending: 429,
    QuotaExceeded: 413,
    RetryRefused: 409,
}
#: Faults of the servers behind the gateway: 503.
SERVER_FAULTS = (
    AccessDenied,
    BucketMissing,
    DatabaseUnavailable,
    ObjectStoreUnavailable,
    TicketsUnavailable,
    TokenKeysUnavailable,
)
HANDLERS: Mapping[Any, Any] = {
    HTTPException: _http,
    ClientDisconnect: _gone,
    **dict.fromkeys(STATUSES, _of_dream),
    **dict.fromkeys((*SERVER_FAULTS, SQLAlchemyError), _unavailable),
    Exception: _unexpected,
}
