"""What an error of the database's driver means for whoever reads it."""

from __future__ import annotations

__all__ = ["NO_TABLES", "lacks_tables"]

NO_TABLES = "the database's tables are missing or older than this release: run `dream migrate`"

#: PostgreSQL's names for a missing table and a missing column.
_SCHEMA_FAULTS = ("42P01", "42703")


def lacks_tables(error: BaseException) -> bool:
    """Whether an error of SQLAlchemy's says that a table or a column is not there."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlstate", None) in _SCHEMA_FAULTS or str(cause).startswith(
        ("no such table", "no such column")
    )
