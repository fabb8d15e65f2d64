"""The log: structlog, one line for each event; JSON unless standard error is a terminal.

Call `configure()` once at the edge of a process, then `get_logger(__name__)`. `bind(task_id=…)` adds fields to
every line of the current thread's work. Secrets never appear: passwords in URLs, tokens and signatures
are replaced before a line is written.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import structlog

    from dream.settings import Settings

__all__ = ["TASK_FAILURES", "bind", "configure", "get_logger", "redact", "redacted"]

#: The logger of failed runs of an app's tasks: a child of Celery's, because Sentry ignores Celery's own.
TASK_FAILURES = "celery.app.trace.dream"

_HIDDEN = "***"
# Each needs time in proportion to the text: errors of tasks may contain megabytes of their arguments.
#: Up to the last `@` before the path, because a password may contain one.
_USERINFO = re.compile(r"(?<!\w)(\w+://)[^/\s\"']*@")
#: A server's password that nobody has encoded may contain a slash, too; its path contains no `@`.
_SERVERS_USERINFO = re.compile(
    r"(?<!\w)((?:rediss?|sentinels?|unix|amqps?|postgres(?:ql)?(?:\+\w+)?)://)[^\s\"']{0,512}@", re.IGNORECASE
)
#: Ends of names: `access_token`, `X-Amz-Signature` and `OSSAccessKeyId` are among them.
_NAMES = r"(?:token|signature|credential|accesskeyid|passw(?:or)?d|secret(?:_?key)?|api_?key)"
_SECRET_PARAMETER = re.compile(rf"({_NAMES}=)[^&\s\"']+", re.IGNORECASE)
#: In JSON, in Python's `repr`, also escaped, and in a connection string of PostgreSQL.
_SECRET_FIELD = re.compile(rf"({_NAMES}(?:\\?[\"'])?\s?[=:]\s?\\?[\"'])[^\"'\\]+", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(authorization[\"']?\s?[=:]\s?[\"']?\w+(?:\s|%20))[^\s\"',]+", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[\w.~+/=-]+", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]{5,2000}\.[\w-]+\.[\w-]*")


#: Every pattern above needs one of these. Most fields, such as paths and states, have none.
_SUSPICIOUS = re.compile(r"[=:\s]|eyJ")


def redact(text: str) -> str:
    """The text without passwords, tokens and signatures."""
    if not _SUSPICIOUS.search(text):
        return text
    text = _SERVERS_USERINFO.sub(r"\1***@", text)
    text = _USERINFO.sub(r"\1***@", text)
    text = _SECRET_PARAMETER.sub(r"\1***", text)
    text = _SECRET_FIELD.sub(r"\1***", text)
    text = _AUTHORIZATION.sub(r"\1***", text)
    text = _BEARER.sub(r"\1***", text)
    return _JWT.sub("***", text)


def _is_secret(name: object, value: object) -> bool:
    return isinstance(value, str) and re.search(rf"{_NAMES}\Z", str(name), re.IGNORECASE) is not None


def redacted(value: Any) -> Any:
    """A field's value without secrets, at any depth. A value of another type becomes text."""
    if type(value) is str:
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _HIDDEN if _is_secret(name, each) else redacted(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(each) for each in value]
    return redact(str(value))


#: Fields that `configure` adds after all others, without secrets. The colons of the time would start every search.
_OF_LOGGING = frozenset({"logger", "level", "timestamp", "_record", "_from_structlog"})


def _redact_event(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    done = getattr(event["_record"], "dream_fields", {})
    return {
        name: value if name in _OF_LOGGING or value is done.get(name) else redacted(value)
        for name, value in event.items()
    }


def configure(settings: Settings) -> None:
    """Send dream's lines and other libraries' to standard error in one format. Only dream's own processes call this."""
    import structlog

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
            _redact_event,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
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


#: Libraries that log every heartbeat or request, or events that dream's own lines report better.
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
    """Turn a line of dream's into a record of `logging`: other handlers read it as text, dream's with its fields."""
    name = event.pop("event")
    how = {key: event.pop(key) for key in ("exc_info", "stack_info") if key in event}
    fields = {key: redacted(value) for key, value in event.items()}
    text = " ".join([redact(str(name)), *(f"{key}={value}" for key, value in fields.items())])
    return {"msg": text, "extra": {"dream_event": name, "dream_fields": fields}, **how}


class _Logger:
    """Imports structlog with the first line: that import takes a third of the time that the façade takes."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _bound(self) -> structlog.stdlib.BoundLogger:
        import structlog

        logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            logging.getLogger(self.name),
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _to_record],
        ).bind()  # else each line would make a logger of its own
        return logger

    def __getattr__(self, method: str) -> Any:
        return getattr(self._bound, method)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `name`. Inside another application they go to that application's handlers."""
    return cast("structlog.stdlib.BoundLogger", _Logger(name))


@contextmanager
def bind(**fields: Any) -> Iterator[None]:
    """Add fields, such as `task_id`, to every line logged inside."""
    import structlog

    with structlog.contextvars.bound_contextvars(**fields):
        yield
