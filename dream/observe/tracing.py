"""Traces of the work, if `DREAM_TRACING` is on: one trace from a request or a call to the event on the page.

    request or call ─► send ─ message ─► process ─┬─► fetch, process, store, record ─► send event ─► process event
                                                  └─ a retry: process, in the same trace, with a link to this run

Nothing of OpenTelemetry is imported until `set_up` finds the setting; until then every function here does nothing.
`dream.observe.otel` makes the spans. They carry ids and counts, and no names, URLs, arguments or texts of errors.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from dream.errors import SettingsError

if TYPE_CHECKING:
    from dream.observe.otel import OpenTelemetry, Request, Run

__all__ = [
    "begin_run",
    "delivering",
    "fail",
    "is_on",
    "note",
    "publishing",
    "sending",
    "serving",
    "set_up",
    "span",
    "stop",
    "store_call",
    "watch_engine",
]

_OFF: AbstractContextManager[Any] = nullcontext()
_on: OpenTelemetry | None = None


class Settings(Protocol):
    """The setting that this module reads."""

    @property
    def tracing(self) -> str: ...


class Sent(Protocol):
    """A message on its way to a queue."""

    @property
    def message_id(self) -> str: ...
    @property
    def actor_name(self) -> str: ...
    @property
    def queue_name(self) -> str: ...
    @property
    def options(self) -> MutableMapping[str, Any]: ...


def set_up(settings: Settings, service: str = "dream") -> None:
    """Begin to trace if the settings say so. Only the first call of a process counts.

    Parameters:
      service: the name of this kind of process, unless `OTEL_SERVICE_NAME` is set.

    Raises:
      SettingsError: OpenTelemetry is not installed.
    """
    global _on
    if _on is not None or settings.tracing == "off":
        return
    try:
        from dream.observe.otel import OpenTelemetry
    except ImportError as error:
        raise SettingsError(
            f"DREAM_TRACING={settings.tracing} needs OpenTelemetry ({error}): pip install 'dream-pictures[otel]'"
        ) from None
    _on = OpenTelemetry.of_process(service)


def stop() -> None:
    """Send the last spans; wait for them for a few seconds at most. Later spans are lost."""
    if _on is not None:
        _on.stop()


def is_on() -> bool:
    """Whether this process traces."""
    return _on is not None


# --- spans


def span(name: str, *, began_ns: int | None = None, **attributes: Any) -> AbstractContextManager[Any]:
    """A context for one step of the work. An error that leaves it marks the span as failed.

    Parameters:
      began_ns: the time at which the step began (`time.time_ns`), if it began earlier.
      attributes: ids and counts; `files=3` becomes `dream.files`.
    """
    return _OFF if _on is None else _on.span(name, attributes, began_ns)


def note(**attributes: Any) -> None:
    """Add attributes to the present span."""
    if _on is not None:
        _on.note(attributes)


def fail(error: BaseException) -> None:
    """Mark the present span as failed, with the class of the error."""
    if _on is not None:
        _on.fail(error)


def store_call(method: str | None) -> AbstractContextManager[Any]:
    """A context for one call to the object store, by the name of the S3 operation; None for no span."""
    return _OFF if _on is None or method is None else _on.store_call(method)


def watch_engine(engine: Any) -> None:
    """Make a span of each statement of a SQLAlchemy engine that runs inside another span."""
    if _on is not None:
        _on.watch_engine(engine)


# --- messages and their runs


def sending(message: Sent, system: str) -> AbstractContextManager[Any]:
    """A context in which the message is put on its queue; the message carries the trace.

    Parameters:
      system: the kind of broker: `redis` or `rabbitmq`.
    """
    return _OFF if _on is None else _on.sending(message, system)


def begin_run(message: Sent, headers: Mapping[str, Any], name: str, system: str) -> Run | None:
    """Begin the span of a run in this thread; call `end` of what is returned.

    Parameters:
      message: as fetched. A later copy of it carries this run as its previous one.
      headers: those of a producer of Celery's, which may carry a trace.
      name: the task's present name.
      system: as for `sending`.
    """
    return None if _on is None else _on.begin_run(message, headers, name, system)


# --- events and requests


def publishing() -> AbstractContextManager[str | None]:
    """A context in which an event is published; it gives the `traceparent` for the event, or None."""
    return _OFF if _on is None else _on.publishing()


def delivering(traceparent: str | None, sockets: int) -> AbstractContextManager[Any]:
    """A context in which a gateway hands an event to its sockets."""
    return _OFF if _on is None or traceparent is None else _on.delivering(traceparent, sockets)


def serving(method: str, headers: Mapping[str, str], *, is_trusted: bool) -> Request | None:
    """Begin the span of an HTTP request; None if this process does not trace.

    Parameters:
      headers: of the request, in lower case.
      is_trusted: continue the trace in the headers; else the span only has a link to it.
    """
    return None if _on is None else _on.serving(method, headers, is_trusted=is_trusted)
