"""How long queries and removals take where tables have millions of rows, and how long others wait meanwhile.

    python -m benchmarks.rows [--tokens 5000000] [--expired 3000000] [--tasks 1000000] [--overdue 300000] [URL…]

A URL is `sqlite:///FILE`, which must not exist, or that of a PostgreSQL server, on which a database of its own is made
and dropped again.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from dream.db import Database, RevokedToken, announcements, migrate, tasks, tokens
from dream.db.batches import in_batches
from dream.db.retention import OldTasks
from dream.settings import Settings

#: A statement of ours may take half a minute.
_FILLED_AT_ONCE = 250_000
_SERVER = "postgresql://postgres@127.0.0.1:5432/postgres"
_NUMBERS = {
    "postgresql": "generate_series(1, {count}) AS g(i)",
    "sqlite": "(WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < {count}) SELECT i FROM g)",
}
_RANDOM_ID = {"postgresql": "gen_random_uuid()::text", "sqlite": "lower(hex(randomblob(16)))"}
#: `{when}` is spread over a month before or after now.
_WHEN = {
    "postgresql": "now() {sign} (1 + i %% 2592000) * interval '1 second'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '{sign}' || (1 + i % 2592000) || ' seconds')",
}


@contextmanager
def _database(url: str) -> Iterator[Database]:
    """A migrated database that is gone afterwards."""
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


def _fill(database: Database, statement: str, count: int, sign: str, **values: str) -> None:
    dialect = database.engine.dialect.name
    when = _WHEN[dialect].format(sign=sign)
    for start in range(0, count, _FILLED_AT_ONCE):
        numbers = _NUMBERS[dialect].format(count=min(_FILLED_AT_ONCE, count - start))
        with database.engine.begin() as connection:
            filled = statement.format(numbers=numbers, id=_RANDOM_ID[dialect], when=when, **values)
            connection.exec_driver_sql(filled)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")


def _milliseconds(call: Callable[[], object], times: int = 20) -> float:
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


class _Others:
    """Two threads that use the table while rows are removed, as logins and requests do: each call's time is kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self.took: dict[str, list[float]] = {"insert": [], "look-up": []}
        self._threads = [
            threading.Thread(target=self._run, args=(name, call))
            for name, call in (("insert", self._insert), ("look-up", self._look_up))
        ]

    def _insert(self) -> None:
        with self._database.begin() as session:
            tokens.revoke(session, uuid4().hex, datetime.now(UTC) + timedelta(days=1), 1)

    def _look_up(self) -> None:
        with self._database.read() as session:
            tokens.is_revoked(session, uuid4().hex)

    def _run(self, name: str, call: Callable[[], None]) -> None:
        while not self._stop.wait(0.01):
            begun = time.perf_counter()
            call()
            self.took[name].append((time.perf_counter() - begun) * 1000)

    def __enter__(self) -> _Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def told(self) -> str:
        parts = []
        for name, took in self.took.items():
            ordered = sorted(took or [0.0])
            p99 = ordered[int(len(ordered) * 0.99)]
            parts.append(f"{name} p50 {statistics.median(ordered):.1f}, p99 {p99:.1f}, max {ordered[-1]:.1f} ms")
        return "; ".join(parts)


def _of_tokens(database: Database, count: int, expired: int) -> None:
    table = RevokedToken.__tablename__
    insert = f"INSERT INTO {table} (jti, expires_at) SELECT {{id}}, {{when}} FROM {{numbers}}"  # noqa: S608
    _fill(database, insert, expired, "-")
    _fill(database, insert, count - expired, "+")
    with _Others(database) as idle:
        time.sleep(5)
    print(f"  tokens, nothing else: {idle.told()}")
    old = tokens.Expired()
    with _Others(database) as others:
        begun, deleted, longest = time.perf_counter(), 0, 0.0
        last = begun
        for hit in in_batches(database, lambda session, count: old.delete(session, count) or None):
            deleted += hit
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        took = time.perf_counter() - begun
    print(f"  tokens, {deleted} of {count} removed in {took:.1f} s, a batch {longest * 1000:.0f} ms: {others.told()}")


def _of_tasks(database: Database, count: int, overdue: int) -> None:
    insert = """INSERT INTO dream_tasks (id, name, args, state, due_at, created_at, finished_at, announced_at)
        SELECT {id}, 'dream.celery.tasks.image_tasks.process_and_upload_images', '[1, [], []]', '{state}', {when},
        {when}, {ended}, {ended} FROM {numbers}"""
    dialect = database.engine.dialect.name
    ended = _WHEN[dialect].format(sign="-")
    _fill(database, insert, count, "-", state="succeeded", ended=ended)
    _fill(database, insert, overdue, "-", state="queued", ended="NULL")

    def within(call: Callable[[Session], object]) -> Callable[[], None]:
        def run() -> None:
            with database.begin() as session:
                call(session)

        return run

    claims = []
    for _ in range(4):
        with database.begin() as session:
            [first] = tasks.overdue(session, 0, limit=1)
            claim = tasks.claim(session, first.id, 60)
        if claim is not None:
            claims.append(claim.token)
    queries: dict[str, Callable[[Session], object]] = {
        "renew": lambda session: tasks.renew(session, claims, 60),
        "overdue, a page": lambda session: tasks.overdue(session, 30),
        "unannounced": lambda session: announcements.unannounced(session, 5, 200),
    }
    for name, query in queries.items():
        print(f"  {name}: {_milliseconds(within(query)):.1f} ms")
    tracemalloc.start()
    begun, seen, last = time.perf_counter(), 0, None
    while True:
        with database.read() as session:
            page = tasks.overdue(session, 30, after=last)
        if not page:
            break
        seen, last = seen + len(page), page[-1]
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"  all {seen} overdue, page by page: {time.perf_counter() - begun:.1f} s, {peak:.1f} MiB at most")
    old = OldTasks(15 * 86400, is_failed=False)
    with _Others(database) as others:
        begun = time.perf_counter()
        pruned = sum(in_batches(database, old.delete))
        took = time.perf_counter() - begun
    print(f"  {pruned} of {count} tasks pruned in {took:.1f} s: {others.told()}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows")
    parser.add_argument("urls", nargs="*", default=[_SERVER], metavar="URL")
    for name, default in (("tokens", 5_000_000), ("expired", 3_000_000), ("tasks", 1_000_000), ("overdue", 300_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    for url in given.urls:
        print(make_url(url).get_backend_name())
        with _database(url) as database:
            if given.tasks:
                _of_tasks(database, given.tasks, given.overdue)
            if given.tokens:
                _of_tokens(database, given.tokens, given.expired)


if __name__ == "__main__":
    main()
