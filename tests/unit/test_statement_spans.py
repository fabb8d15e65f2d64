"""Spans of SQL statements, and errors that come at any time of a statement."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from dream.observe.otel import OpenTelemetry

#: SQLite computes the second row when it is fetched: by then the statement has ended well.
FAILS_AT_ITS_SECOND_ROW = "SELECT 1 UNION ALL SELECT abs(-9223372036854775808)"


class Traced:
    """An engine whose statements are traced, and their spans."""

    def __init__(self, engine: Engine) -> None:
        self._exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._engine = engine
        self.tracing = OpenTelemetry(provider.get_tracer("test"))
        self.tracing.watch_engine(engine)

    def run(self, *statements: str) -> None:
        with self._engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement)).all()

    @property
    def statements(self) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name.startswith("SELECT")]


@pytest.fixture
def traced() -> Iterator[Traced]:
    engine = create_engine("sqlite://")
    yield Traced(engine)
    engine.dispose()


def test_an_error_at_a_later_row_stays_itself(traced: Traced) -> None:
    with traced.tracing.span("step", {}), pytest.raises(OperationalError, match="overflow"):
        traced.run("SELECT 1", FAILS_AT_ITS_SECOND_ROW)
    assert [span.status.status_code for span in traced.statements] == [StatusCode.UNSET, StatusCode.UNSET]


def test_a_statement_that_fails_is_a_failed_span(traced: Traced) -> None:
    with traced.tracing.span("step", {}), pytest.raises(OperationalError, match="no such table"):
        traced.run("SELECT 1", "SELECT * FROM nowhere")
    assert [span.status.status_code for span in traced.statements] == [StatusCode.UNSET, StatusCode.ERROR]
    assert traced.statements[1].name == "SELECT nowhere"


def test_outside_of_all_spans_a_statement_has_none(traced: Traced) -> None:
    with pytest.raises(OperationalError):
        traced.run("SELECT 1", "SELECT * FROM nowhere")
    assert traced.statements == []
