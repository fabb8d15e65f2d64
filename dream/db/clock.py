"""The database's time: one type for columns, one expression for "now".

Leases and due times are compared by the database's clock, never by a worker's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Float, bindparam, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

__all__ = ["UTCDateTime", "as_of", "minute_of", "now"]


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime: `timestamptz` on PostgreSQL, naive UTC text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function it is)
    """The database's clock, `plus_s` seconds from now (negative: ago), to the millisecond."""

    type = UTCDateTime()
    inherit_cache = True

    def __init__(self, plus_s: float | str = 0.0) -> None:
        # A parameter, not a part of the text: a statement is compiled once for all times. A name: given at each run.
        if isinstance(plus_s, str):
            super().__init__(bindparam(plus_s, type_=Float))
        else:
            super().__init__(literal(round(float(plus_s), 3), Float))


class as_of(now):  # noqa: N801 (as above)
    """The moment at which the statement began: one value for all rows, so that an index serves it.

    PostgreSQL evaluates `now` for each row, and therefore reads the whole table for a comparison with it.
    """

    inherit_cache = True


@compiles(now, "sqlite")
def _on_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    # SQLAlchemy stores microseconds as six digits; SQLite's clock has three.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {compiler.process(element.clauses, **options)} || ' seconds')"


@compiles(now, "postgresql")
def _on_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(as_of, "postgresql")
def _as_of_on_postgresql(element: as_of, compiler: SQLCompiler, **options: Any) -> str:
    return f"(statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


class minute_of(FunctionElement[int]):  # noqa: N801 (as above)
    """The minutes from the epoch to a time, as a whole number."""

    type = BigInteger()
    inherit_cache = True


@compiles(minute_of, "sqlite")
def _minute_on_sqlite(element: minute_of, compiler: SQLCompiler, **options: Any) -> str:
    return f"(CAST(strftime('%s', {compiler.process(element.clauses, **options)}) AS INTEGER) / 60)"


@compiles(minute_of, "postgresql")
def _minute_on_postgresql(element: minute_of, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(floor(extract(epoch FROM {compiler.process(element.clauses, **options)}) / 60) AS BIGINT)"
