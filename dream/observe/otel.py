"""Spans by OpenTelemetry, with the names of its semantic conventions; imported only if `DREAM_TRACING` is on.

If the application has set a tracer provider, it gets the spans. Otherwise dream makes one, which sends by OTLP over
HTTP and reads the standard variables `OTEL_…`. It sends in a thread of its own: a collector that is away costs one line
in the log.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dream.log import get_logger
from dream.observe.trace_context import PREVIOUS_RUN, TRACEPARENT, TRACESTATE
from dream.version import __version__

if TYPE_CHECKING:
    from dream.observe.tracing import Sent

__all__ = ["OpenTelemetry", "Request", "Run"]

log = get_logger(__name__)

#: Seconds for one try to send spans, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise. A stop waits for two tries.
_SEND_S = 2.0
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
#: The longest text of a statement.
_LONGEST_QUERY = 2000
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+\"?([\w.]+)", re.IGNORECASE)
#: Trace Context alone: baggage is the application's, and may be personal.
_propagator = TraceContextTextMapPropagator()


class _Running(NamedTuple):
    """The run of this thread: its task's id, and what a message of the same task carries."""

    task_id: str
    carried: Mapping[str, str]


_running: ContextVar[_Running | None] = ContextVar("dream_running", default=None)


class OpenTelemetry:
    """The spans of one process.

    Parameters:
      tracer: makes the spans.
      provider, exporter: dream's own, which `stop` ends; None if the application has one.
    """

    def __init__(
        self, tracer: trace.Tracer, provider: TracerProvider | None = None, exporter: _Exporter | None = None
    ) -> None:
        self._tracer = tracer
        self._provider = provider
        self._exporter = exporter

    @classmethod
    def of_process(cls, service: str) -> OpenTelemetry:
        """The spans of this process, by the application's provider or by dream's own."""
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return cls(trace.get_tracer("dream", __version__))
        own = Resource({"service.name": service, "service.version": __version__})
        # `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` come last, so they win.
        resource = Resource.get_empty().merge(own).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = _Exporter()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        spans = cls(provider.get_tracer("dream", __version__), provider, exporter)
        atexit.register(spans.stop)
        return spans

    def stop(self) -> None:
        """See `dream.observe.tracing.stop`."""
        provider, self._provider = self._provider, None
        if provider is not None and self._exporter is not None:
            self._exporter.is_stopping = True
            provider.shutdown()

    # --- spans

    def span(self, name: str, attributes: Mapping[str, Any], began_ns: int | None = None) -> _Span:
        """See `dream.observe.tracing.span`."""
        return _Span(self._tracer.start_span(name, attributes=_ours(attributes), start_time=began_ns))

    def note(self, attributes: Mapping[str, Any]) -> None:
        """See `dream.observe.tracing.note`."""
        trace.get_current_span().set_attributes(_ours(attributes))

    def fail(self, error: BaseException) -> None:
        """See `dream.observe.tracing.fail`."""
        _fail(trace.get_current_span(), error)

    @contextmanager
    def store_call(self, method: str) -> Iterator[None]:
        """See `dream.observe.tracing.store_call`. Outside of all spans, as in the nightly sweep, there is none."""
        if not _is_inside():
            yield
            return
        about = {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": method}
        with _Span(self._tracer.start_span(f"S3/{method}", kind=SpanKind.CLIENT, attributes=about)):
            yield

    def watch_engine(self, engine: Any) -> None:
        """See `dream.observe.tracing.watch_engine`. Statements outside of all spans, such as the sweep's, have none."""
        from sqlalchemy import event

        url = engine.url
        about: dict[str, Any] = {"db.system.name": url.get_backend_name()}
        if url.host:  # of SQLite the database is a path
            about |= {"server.address": url.host, "db.namespace": url.database or ""}

        def before(_connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool) -> None:
            if context is not None and _is_inside():
                context.dream_span = self._statement(statement, about)

        def after(_connection: Any, _cursor: Any, _statement: str, _values: Any, context: Any, _many: bool) -> None:
            if (span := _taken_from(context)) is not None:
                span.end()

        def failed(failure: Any) -> None:
            # No span: the statement was not sent, or its rows could not be fetched after its end.
            if (span := _taken_from(failure.execution_context)) is not None:
                _fail(span, failure.original_exception)
                span.end()

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)

    def _statement(self, statement: str, about: Mapping[str, Any]) -> trace.Span:
        operation = statement.lstrip().split(None, 1)[0].upper()
        table = _TABLE.search(statement)
        summary = f"{operation} {table[1]}" if table else operation
        more = {
            "db.operation.name": operation,
            "db.query.summary": summary,
            "db.query.text": statement[:_LONGEST_QUERY],  # without its parameters
        }
        return self._tracer.start_span(summary, kind=SpanKind.CLIENT, attributes={**about, **more})

    # --- messages and their runs

    @contextmanager
    def sending(self, message: Sent, system: str) -> Iterator[None]:
        """See `dream.observe.tracing.sending`."""
        about = _of_message(message, system, "send")
        with _Span(self._tracer.start_span(_name(about), kind=SpanKind.PRODUCER, attributes=about)) as span:
            running = _running.get()
            if running is not None and running.task_id == message.message_id:
                message.options.update(running.carried)  # a retry is a brother of its run, not a child
            elif TRACEPARENT not in message.options and span.get_span_context().is_valid:
                _propagator.inject(message.options)
            yield

    def begin_run(self, message: Sent, headers: Mapping[str, Any], name: str, system: str) -> Run:
        """See `dream.observe.tracing.begin_run`."""
        options = message.options
        parent = _propagator.extract(_texts(options if TRACEPARENT in options else headers), Context())
        previous = _remote(options.get(PREVIOUS_RUN))
        about = _of_message(message, system, "process") | {"dream.task": name}
        span = self._tracer.start_span(
            _name(about), parent, SpanKind.CONSUMER, about, [Link(previous)] if previous is not None else ()
        )
        if span.get_span_context().is_valid:
            carrier: dict[str, str] = {}
            _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
            if TRACEPARENT not in options:
                options.update(_texts(headers) or carrier)
            options[PREVIOUS_RUN] = carrier[TRACEPARENT]
        carried = {each: options[each] for each in (TRACEPARENT, TRACESTATE, PREVIOUS_RUN) if each in options}
        return Run(span, _Running(message.message_id, carried))

    # --- events and requests

    @contextmanager
    def publishing(self) -> Iterator[str | None]:
        """See `dream.observe.tracing.publishing`."""
        about = _of_events("send")
        with _Span(self._tracer.start_span(_name(about), kind=SpanKind.PRODUCER, attributes=about)):
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            yield carrier.get(TRACEPARENT)

    @contextmanager
    def delivering(self, traceparent: str, sockets: int) -> Iterator[None]:
        """See `dream.observe.tracing.delivering`."""
        parent = _propagator.extract({TRACEPARENT: traceparent}, Context())
        about = _of_events("process") | {"dream.sockets": sockets}
        with _Span(self._tracer.start_span(_name(about), parent, SpanKind.CONSUMER, about)):
            yield

    def serving(self, method: str, headers: Mapping[str, str], *, is_trusted: bool) -> Request:
        """See `dream.observe.tracing.serving`."""
        parent = _propagator.extract(_texts(headers), Context())
        remote, links = trace.get_current_span(parent).get_span_context(), list[Link]()
        if not is_trusted:
            parent, links = Context(), [Link(remote)] if remote.is_valid else []
        about = {"http.request.method": method}
        return Request(method, self._tracer.start_span(method, parent, SpanKind.SERVER, about, links))


class _Span:
    """A span that is the present one inside the block."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> trace.Span:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        contexts.detach(self._token)
        if error is not None:
            _fail(self._span, error)
        self._span.end()


class Run:
    """The span of a run, which is the present one of its thread until `end`."""

    def __init__(self, span: trace.Span, running: _Running) -> None:
        self._span = span
        self._token = contexts.attach(trace.set_span_in_context(span))
        self._running: Token[_Running | None] = _running.set(running)

    def end(self, error: BaseException | None, *, outcome: str) -> None:
        """End the span, in the thread of the run.

        Parameters:
          outcome: `done`, `retried`, `failed` or `skipped`.
        """
        _running.reset(self._running)
        contexts.detach(self._token)
        self._span.set_attribute("dream.outcome", outcome)
        if error is not None:
            _fail(self._span, error)
        self._span.end()


class Request(_Span):
    """The span of an HTTP request."""

    __slots__ = ("_method",)

    def __init__(self, method: str, span: trace.Span) -> None:
        super().__init__(span)
        self._method = method

    def answered(self, status: int, route: str | None) -> None:
        """Note the answer. The route is the pattern of the path; without one, the path named nothing."""
        if route is not None:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


class _Exporter(SpanExporter):
    """Sends spans by OTLP; logs one line when they cannot be sent, and one when they can again."""

    def __init__(self) -> None:
        # Its own lines come every few seconds, some with a traceback.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        is_set = any(os.environ.get(name) for name in _TIMEOUTS)
        self._otlp = OTLPSpanExporter(timeout=None if is_set else _SEND_S)
        self._sends = True
        #: The process ends: after a failed try the rest is dropped.
        self.is_stopping = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.is_stopping and not self._sends:
            return SpanExportResult.FAILURE
        outcome = self._otlp.export(spans)
        sends = outcome is SpanExportResult.SUCCESS
        if self._sends and not sends:
            log.warning("traces_not_sent", do="check OTEL_EXPORTER_OTLP_ENDPOINT; the work goes on, and spans are lost")
        elif sends and not self._sends:
            log.info("traces_sent_again")
        self._sends = sends
        return outcome

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


# --- attributes


def _fail(span: trace.Span, error: BaseException) -> None:
    # The class alone: the words of an error may hold names, addresses and signatures.
    span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
    span.set_status(StatusCode.ERROR)


def _taken_from(context: Any) -> trace.Span | None:
    """The span of SQLAlchemy's context of a statement, which is taken once."""
    span: trace.Span | None = getattr(context, "dream_span", None)
    if span is not None:
        context.dream_span = None
    return span


def _is_inside() -> bool:
    return trace.get_current_span().get_span_context().is_valid


def _ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"dream.{name}": value for name, value in attributes.items() if value is not None}


def _of_message(message: Sent, system: str, operation: str) -> dict[str, Any]:
    return {
        "messaging.system": system,
        "messaging.destination.name": message.queue_name.removesuffix(".DQ"),
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.message.id": message.message_id,
        "dream.task": message.actor_name,
    }


def _of_events(operation: str) -> dict[str, Any]:
    return {
        "messaging.system": "redis",
        "messaging.destination.name": "events",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


def _name(about: Mapping[str, Any]) -> str:
    return f"{about['messaging.operation.name']} {about['messaging.destination.name']}"


def _texts(carrier: Mapping[str, Any]) -> dict[str, str]:
    """The fields of Trace Context that are texts: anybody may have written them."""
    return {name: carrier[name] for name in (TRACEPARENT, TRACESTATE) if isinstance(carrier.get(name), str)}


def _remote(traceparent: Any) -> trace.SpanContext | None:
    found = trace.get_current_span(_propagator.extract(_texts({TRACEPARENT: traceparent}), Context()))
    return found.get_span_context() if found.get_span_context().is_valid else None
