"""How dream logs: structlog, one line an event, JSON when nobody watches a terminal.

Call `configure()` once at the edge of a process, then `get_logger(__name__)`. `bind(task_id=…)` adds fields to
every line of the current thread's work. Secrets never appear: URLs lose their passwords and their query strings'
tokens and signatures before a line is written.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["TASK_FAILURES", "bind", "configure", "get_logger", "redact"]

#: The logger of failed runs of an app's tasks: a child of Celery's, because Sentry ignores Celery's own.
TASK_FAILURES = "celery.app.trace.dream"

# Each in a time that grows as the text does: what callers pass is in what tasks fail with, and may be megabytes.
#: Up to the last `@` before the path: a password may hold one.
_USERINFO = re.compile(r"(?<!\w)(\w+://)[^/\s\"']*@")
#: Ends of names: `access_token`, `X-Amz-Signature` and `OSSAccessKeyId` are among them.
_SECRET_PARAMETER = re.compile(
    r"((?:token|signature|credential|accesskeyid|password|secret)=)[^&\s\"']+", re.IGNORECASE
)
_BEARER = re.compile(r"(Bearer\s+)[\w.~+/=-]+", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]{5,2000}\.[\w-]+\.[\w-]*")


def redact(text: str) -> str:
    """The text without passwords, tokens and signatures."""
    text = _USERINFO.sub(r"\1***@", text)
    text = _SECRET_PARAMETER.sub(r"\1***", text)
    text = _BEARER.sub(r"\1***", text)
    return _JWT.sub("***", text)


def _redacted(value: Any) -> Any:
    """A field's value without secrets, however deep they lie; what is no plain value becomes text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _redacted(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(each) for each in value]
    return redact(str(value))


def _redact_event(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: _redacted(value) for name, value in event.items()}


def configure(settings: Settings) -> None:
    """Send our lines and other libraries', in one format, to standard error. For processes of our own."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    # Plain tracebacks, as text before the redaction: rich ones would show every frame's variables, secrets among them.
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            _unpack_fields,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _redact_event,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)


#: Libraries that tell every heartbeat or request, and what they say of themselves that our own lines say better.
_QUIETER = {
    **dict.fromkeys(
        ("alembic", "botocore", "boto3", "urllib3", "apscheduler", "s3transfer", "dramatiq"), logging.WARNING
    ),
    "pika": logging.CRITICAL,
    "dramatiq.worker.WorkerThread": logging.ERROR,
}


def _unpack_fields(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    record = event["_record"]
    if hasattr(record, "dream_event"):
        event.update(record.dream_fields, event=record.dream_event)
    return event


def _to_record(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Our line as a record of the standard library's: a host's own handlers read it as text, ours with its fields."""
    name = event.pop("event")
    how = {key: event.pop(key) for key in ("exc_info", "stack_info") if key in event}
    fields = {key: _redacted(value) for key, value in event.items()}
    text = " ".join([redact(str(name)), *(f"{key}={value}" for key, value in fields.items())])
    return {"msg": text, "extra": {"dream_event": name, "dream_fields": fields}, **how}


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `name`. Inside another application they go where its own logging goes."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _to_record],
    )
    return logger


@contextmanager
def bind(**fields: Any) -> Iterator[None]:
    """Add fields, such as `task_id`, to every line logged inside."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield
