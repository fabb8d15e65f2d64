"""An OpenTelemetry collector of the tests' own: an HTTP server that reads OTLP, and the spans that it got."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from tests.posts import taking_posts

__all__ = ["Collector", "Span", "collecting"]


@dataclass(frozen=True)
class Span:
    """A span as the collector got it; ids in hex."""

    service: str
    name: str
    kind: str
    trace_id: str
    id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    is_failed: bool
    took_s: float


@dataclass
class Collector:
    """The spans that came, and the variables of a process that sends some."""

    environment: dict[str, str]
    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """Every span so far."""
        return [span for body in list(self.bodies) for span in _spans_of(body)]

    def named(self, name: str, service: str | None = None) -> list[Span]:
        """The spans of a name, in the order of their arrival."""
        return [each for each in self.spans if each.name == name and service in (None, each.service)]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, and the variables with which a process sends to it, every 0.1 s."""
    bodies: list[bytes] = []
    with taking_posts(bodies) as port:
        yield Collector(environment_for(port), bodies)


def environment_for(port: int) -> dict[str, str]:
    """The variables with which a process sends its spans to that port of this machine, every 0.1 s."""
    return {
        "DREAM_TRACING": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def _spans_of(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=service,
                    name=span.name,
                    kind=OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    links=tuple(link.span_id.hex() for link in span.links),
                    attributes=_attributes(span.attributes),
                    is_failed=span.status.code == 2,
                    took_s=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
