"""Time as the database sees it: one type for columns, one expression for "now".

Leases and due times are compared by the database's clock, never by a worker's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeDecorator

__all__ = ["UTCDateTime", "now"]


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


class now(ColumnElement[datetime]):  # noqa: N801 (reads as the SQL function it is)
    """The database's clock, `plus_s` seconds from now (negative: ago)."""

    type = UTCDateTime()
    inherit_cache = False

    def __init__(self, plus_s: float = 0.0) -> None:
        self.plus_s = float(plus_s)


@compiles(now, "sqlite")
def _on_sqlite(element: now, _compiler: Any, **_: Any) -> str:
    # SQLAlchemy stores microseconds as six digits; SQLite's clock has three.
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{element.plus_s:+.3f} seconds')"


@compiles(now, "postgresql")
def _on_postgresql(element: now, _compiler: Any, **_: Any) -> str:
    return f"(clock_timestamp() + interval '{element.plus_s:.3f} seconds')"
