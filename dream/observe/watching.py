"""Time calls by hooks that exist anyway: SQLAlchemy's events, boto3's events, and the steps of dream's flows."""

from __future__ import annotations

import time
from typing import Any

from dream import fault_points
from dream.observe.metrics import DATABASE_ERRORS, DATABASE_SECONDS, STEP_SECONDS, STORE_ERRORS, STORE_SECONDS

__all__ = ["count_store_answer", "watch_statements", "watch_steps", "watch_store"]

_BEGAN = "dream_began"
_STATEMENTS = frozenset({"select", "insert", "update", "delete", "with"})
_DENIED, _SERVER_ERROR = 400, 500
#: A missing object, and a range that a client asks for beyond the end of its object.
_NO_FAULT = 404, 416


def watch_steps() -> None:
    """Time each step of a flow."""
    fault_points.watch(lambda step, seconds: STEP_SECONDS.observe(seconds, step))


def watch_statements(engine: Any) -> None:
    """Time the statements of an engine of SQLAlchemy, and count its errors."""
    from sqlalchemy import event

    event.listen(engine, "before_cursor_execute", _statement_begins)
    event.listen(engine, "after_cursor_execute", _statement_ends)
    event.listen(engine, "handle_error", _statement_fails)
    commit = engine.dialect.do_commit

    def timed_commit(connection: Any) -> None:
        with DATABASE_SECONDS.timed("commit"):
            commit(connection)

    engine.dialect.do_commit = timed_commit


def _statement_begins(_connection: Any, _cursor: Any, _statement: str, _values: Any, context: Any, _many: bool) -> None:
    if context is not None:
        context.dream_began = time.perf_counter()


def _statement_ends(_connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool) -> None:
    began = getattr(context, _BEGAN, None)
    if began is not None:
        first = statement.lstrip().partition(" ")[0].lower()
        DATABASE_SECONDS.observe(time.perf_counter() - began, first if first in _STATEMENTS else "other")


def _statement_fails(context: Any) -> None:
    from sqlalchemy.exc import IntegrityError

    # Two writers of one row are no fault, nor is a lost connection that a ping has found in the pool.
    error = context.sqlalchemy_exception
    if error is not None and not isinstance(error, IntegrityError) and not context.is_pre_ping:
        DATABASE_ERRORS.add("disconnected" if context.is_disconnect or context.connection is None else "refused")


def watch_store(client: Any) -> None:
    """Time the calls of a client of boto3, with their retries, and count those that fail."""
    client.meta.events.register("before-call.s3", _call_begins)
    client.meta.events.register("after-call.s3", _call_ends)
    client.meta.events.register("after-call-error.s3", _call_fails)


def _call_begins(context: dict[str, Any], **_: Any) -> None:
    context[_BEGAN] = time.perf_counter()


def _call_ends(context: dict[str, Any], model: Any, http_response: Any, **_: Any) -> None:
    count_store_answer(model.name, context[_BEGAN], http_response.status_code)


def _call_fails(context: dict[str, Any], event_name: str, **_: Any) -> None:
    if _BEGAN in context:
        count_store_answer(event_name.rpartition(".")[2], context[_BEGAN], None)


def count_store_answer(operation: str, began: float, status: int | None) -> None:
    """Record one call of the object store.

    Parameters:
      began: by `time.perf_counter`.
      status: of HTTP; None if the store did not answer.
    """
    STORE_SECONDS.observe(time.perf_counter() - began, operation)
    if status is None:
        STORE_ERRORS.add("unavailable")
    elif status >= _SERVER_ERROR:
        STORE_ERRORS.add("server")
    elif status >= _DENIED and status not in _NO_FAULT:
        STORE_ERRORS.add("refused")
