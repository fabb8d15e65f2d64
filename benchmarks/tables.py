"""Databases of the benchmarks' own: created, filled with millions of rows, used by others meanwhile, and dropped."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, create_engine, make_url, text

from dream.db import Database, migrate
from dream.db.session import make_engine
from dream.settings import Settings

__all__ = ["SERVER", "Others", "filling", "numbers", "own_database", "quantiles"]

SERVER = "postgresql://postgres@127.0.0.1:5432/postgres"
_NUMBERS = {
    "postgresql": "generate_series({first}::bigint, {last}) AS g(i)",
    "sqlite": "(WITH RECURSIVE g(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM g WHERE i < {last})"
    " SELECT i FROM g)",
}
_CONSTRAINTS = """SELECT c.conname, c.conrelid::regclass::text, pg_get_constraintdef(c.oid) FROM pg_constraint c
    JOIN pg_class t ON t.oid = c.conrelid WHERE c.contype IN ('p', 'u') AND t.relname = ANY(:tables)"""
_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(:tables)"


@contextmanager
def own_database(url: str) -> Iterator[Database]:
    """A migrated database, dropped afterwards.

    Parameters:
      url: `sqlite:///FILE`, and FILE must not exist, or the URL of a PostgreSQL server.
    """
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        if file.exists():
            raise SystemExit(f"{file} exists: name a file that does not")
        try:
            yield from _migrated(url)
        finally:
            for left in file.parent.glob(f"{file.name}*"):
                left.unlink()
        return
    server = create_engine(make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    name = f"dream_rows_{uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            own = make_url(url).set(drivername="postgresql", database=name)
            yield from _migrated(own.render_as_string(hide_password=False))
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def _migrated(url: str) -> Iterator[Database]:
    migrate.upgrade(url)
    database = Database(Settings(database_url=url))
    try:
        yield database
    finally:
        database.dispose()


def numbers(dialect: str, first: int, last: int) -> str:
    """A FROM item with a column `i` that counts from `first` to `last`."""
    return _NUMBERS[dialect].format(first=first, last=last)


@contextmanager
def filling(database: Database, tables: Sequence[str]) -> Iterator[Connection]:
    """A connection that commits each statement. PostgreSQL builds the tables' keys and indexes after the block."""
    url = database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    engine = make_engine(url, takes_long=True)
    is_postgres = engine.dialect.name == "postgresql"
    own = {"isolation_level": "AUTOCOMMIT"} if is_postgres else {}
    with engine.connect().execution_options(**own) as connection:
        again = _without_indexes(connection, tables) if is_postgres else []
        yield connection
        for statement in again:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("VACUUM (ANALYZE)" if is_postgres else "ANALYZE")
        connection.commit()
    engine.dispose()


def _without_indexes(connection: Connection, tables: Sequence[str]) -> list[str]:
    """Drop the keys and indexes of the tables; returns the statements that make them again."""
    connection.exec_driver_sql("SET maintenance_work_mem = '512MB'")
    of = {"tables": list(tables)}
    again = []
    for name, table, definition in connection.execute(text(_CONSTRAINTS), of).all():
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name} CASCADE")
        again.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for name, definition in connection.execute(text(_INDEXES), of).all():
        connection.exec_driver_sql(f"DROP INDEX {name}")
        again.append(definition)
    return again


def quantiles(took_ms: Sequence[float]) -> str:
    """`least …, p50 …, p99 …, max … ms` of these times. Other programs on the machine make all but the least longer."""
    ordered = sorted(took_ms or [0.0])
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"least {ordered[0]:.1f}, p50 {statistics.median(ordered):.1f}, p99 {p99:.1f}, max {ordered[-1]:.1f} ms"


class Others:
    """Threads that use the tables meanwhile, each with one kind of call; every call is timed.

    Parameters:
      calls: by name.
      every_s: the pause between two calls of a thread.
    """

    def __init__(self, calls: dict[str, Callable[[], object]], every_s: float = 0.01) -> None:
        self._stop = threading.Event()
        self._every_s = every_s
        self.took_ms: dict[str, list[float]] = {name: [] for name in calls}
        self.failed: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=each) for each in calls.items()]

    def _run(self, name: str, call: Callable[[], object]) -> None:
        while not self._stop.wait(self._every_s):
            begun = time.perf_counter()
            try:
                call()
            except Exception as error:  # noqa: BLE001 (told at the end of the block)
                self.failed.append(error)
                return
            self.took_ms[name].append((time.perf_counter() - begun) * 1000)

    def __enter__(self) -> Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failed:
            raise self.failed[0]

    def told(self) -> str:
        return "; ".join(f"{name} {quantiles(took)}" for name, took in self.took_ms.items())
