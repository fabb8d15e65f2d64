"""The reasons for which the gateway refuses a request: each has a code for programs and a status.

`docs/errors.md` lists them. The errors in `dream.errors` have codes already; `faults` knows their statuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from starlette.exceptions import HTTPException

from dream.errors import Reason

__all__ = ["Code", "Refused", "code_of_status"]


class Code(Enum):
    """A reason.

    Parameters:
      code: for programs; it never changes.
      status: the status of the answer.
    """

    REQUEST_MALFORMED = "request_malformed", 400
    QUERY_INVALID = "query_invalid", 400
    FORM_INVALID = "form_invalid", 400
    BODY_INVALID = "body_invalid", 400
    TOKEN_NOT_REVOCABLE = "token_not_revocable", 400
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid", 400
    DREAM_NOT_YOURS = "dream_not_yours", 403
    NOT_AN_OPERATOR = "not_an_operator", 403
    ORIGIN_NOT_ALLOWED = "origin_not_allowed", 403
    ADDRESS_NOT_FOUND = "address_not_found", 404
    DREAM_NOT_FOUND = "dream_not_found", 404
    IMAGE_NOT_FOUND = "image_not_found", 404
    ORIGINAL_NOT_FOUND = "original_not_found", 404
    FAILED_TASK_NOT_FOUND = "failed_task_not_found", 404
    DIRECT_UPLOADS_OFF = "direct_uploads_off", 404
    MEDIA_COOKIE_NOT_USED = "media_cookie_not_used", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    REQUEST_TOO_SLOW = "request_too_slow", 408
    IMAGE_NOT_FAILED = Reason.IMAGE_NOT_FAILED.code, 409
    UPLOAD_IN_WORK = Reason.UPLOAD_IN_WORK.code, 409
    UPLOAD_GONE = Reason.UPLOAD_GONE.code, 409
    BODY_TOO_LARGE = "body_too_large", 413
    TOO_MANY_FILES = "too_many_files", 413
    TYPE_NOT_ACCEPTED = "type_not_accepted", 415
    RANGE_NOT_THERE = "range_not_there", 416
    TOO_MANY_REQUESTS = "too_many_requests", 429
    TOO_MANY_CONNECTIONS = "too_many_connections", 429
    HEAD_TOO_LARGE = "head_too_large", 431
    GATEWAY_FULL = "gateway_full", 503
    NOT_READY = "not_ready", 503
    STORE_TOO_SLOW = "object_store_unavailable", 504

    def __init__(self, code: str, status: int) -> None:
        self.code = code
        self.status = status


class Refused(HTTPException):
    """A request that the gateway refuses.

    Parameters:
      reason: gives the status and the code of the answer.
      sentence: for people: the mistake, and the remedy.
      headers: further headers of the answer.
    """

    def __init__(self, reason: Code, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason.status, sentence, headers)
        self.code = reason.code


#: The codes of answers that other libraries make, or that are made before there is a request.
_OF_STATUS = {
    400: Code.REQUEST_MALFORMED,
    404: Code.ADDRESS_NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.REQUEST_TOO_SLOW,
    413: Code.BODY_TOO_LARGE,
    415: Code.TYPE_NOT_ACCEPTED,
    429: Code.TOO_MANY_CONNECTIONS,
    431: Code.HEAD_TOO_LARGE,
    503: Code.GATEWAY_FULL,
}


def code_of_status(status: int) -> str:
    """The code of an answer that has only a status."""
    known = _OF_STATUS.get(status)
    return known.code if known is not None else Reason.INTERNAL_ERROR.code
