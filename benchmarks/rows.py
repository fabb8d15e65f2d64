"""Times of dream's queries, of the sweep and of the removal of old rows, on tables with millions of tasks.

    python -m benchmarks.rows [--rows 200000] [--open 1000] [--redis URL] [URL…]

A URL is `sqlite:///FILE`, and FILE must not exist, or the URL of a PostgreSQL server. There the benchmark creates a
database of its own and drops it again. Most tasks have succeeded, each with one to three pictures; half a percent
failed, a twentieth are deletions. The times are of the statements, without the commit.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import Connection, make_url
from sqlalchemy.orm import Session

from benchmarks.tables import SERVER, Others, filling, numbers, own_database, quantiles
from dream.db import Database, DreamImage, backlog, dead_letters, dreams, images, tasks
from dream.db.batches import in_batches
from dream.db.retention import OldTasks, OldTombstones, was_pruned
from dream.messages.listing import ListOrder
from dream.messages.registry import DELETE_IMAGES, PROCESS_IMAGES
from dream.messages.states import ImageState, TaskState
from dream.runs.connections import Connections
from dream.scheduler.sweep import Sweep
from dream.settings import Settings

_AT_ONCE = 500_000
_DAYS = 60
_TABLES = ("dream_tasks", "dream_images", "dreams")
_LARGE_DREAM = 9_000_000_000
_LIMIT_MS, _SWEEP_LIMIT_MS = 5.0, 100.0
#: A number that spreads ids over their index as random ones are.
_SPREAD = 2_654_435_761

# SQL by dialect: the id of task `i`, and a time within the last days, in the order of `i`.
_ID = {
    "postgresql": f"(lpad(to_hex((i * {_SPREAD}) % 4294967296), 8, '0') || lpad(to_hex(i), 24, '0'))",
    "sqlite": f"printf('%08x%024x', (i * {_SPREAD}) % 4294967296, i)",
}
_AT = {
    "postgresql": f"(statement_timestamp() - ({{count}} + 1 - i) * {_DAYS * 86400}.0 / {{count}}"
    " * interval '1 second')",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || "
    f"(1.0 * ({{count}} + 1 - i) * {_DAYS * 86400} / {{count}}) || ' seconds')",
}
_JUST_NOW = {
    "postgresql": "(statement_timestamp() - interval '120 seconds')",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-120 seconds')",
}
_KEY = {"postgresql": "lpad(to_hex(i), 30, '0') || '0' || k", "sqlite": "printf('%030x0%d', i, k)"}
_PICTURES = "(SELECT 0 AS k UNION ALL SELECT 1 UNION ALL SELECT 2) AS p"

_TASK = """INSERT INTO dream_tasks (id, name, args, state, attempts, due_at, lease_token, lease_expires_at, result,
    announced_at, created_at, finished_at) SELECT {id}, CASE WHEN i % 20 = 19 THEN '{deletion}' ELSE '{upload}' END,
    CAST('[' || (i / 10) || ', [{{"name": "holiday-0001.jpg", "data": "staging/20260101/' || {id} || '"}}], [0]]'
    AS {json}), {state}, 0, {at}, {token}, {lease}, CAST({result} AS {json}), {ended}, {at}, {ended} FROM {numbers}"""
_IMAGE = """INSERT INTO dream_images (dream_id, user_id, task_id, "index", position, filename, state, bucket,
    storage_key, staging_key, url, width_px, height_px, size_bytes, content_type, placeholder, dominant_colour,
    wanted_variants, variants, swept, created_at, updated_at) SELECT {dream}, {dream} / 10, {id}, k, i % 1000,
    'holiday-000' || k || '.jpg', {state}, 'dream', 'dreams/20260101/' || {key} || '.jpg', {staged},
    'https://pictures.example.org/media/dreams/20260101/' || {key} || '.jpg', 2560, 1920, 700000, 'image/jpeg',
    'x/gFFYIjd3h3eIiIeHdwd3eHd3d3', '#a0b0c0', '[]', '[]', {swept}, {at}, {at} FROM {numbers}, {pictures}
    WHERE {has}"""
_DREAM = "INSERT INTO dreams (id, user_id, username, title) SELECT i, i / 10, 'user' || i, 'A dream' FROM {numbers}"


def _task_id(number: int) -> str:
    return f"{number * _SPREAD % 4294967296:08x}{number:024x}"


class _Filled:
    """The tables' rows: tasks `1` to `count` have ended, and `opened` more wait."""

    def __init__(self, database: Database, count: int, opened: int) -> None:
        self.database = database
        self.count = count
        self.opened = opened
        self.large = min(100_000, count // 10)
        self._dialect = database.engine.dialect.name
        with filling(database, _TABLES) as connection:
            self._fill(connection)

    def _run(self, connection: Connection, statement: str, first: int, last: int, **values: str) -> None:
        is_postgres = self._dialect == "postgresql"
        yes, no, json = ("true", "false", "json") if is_postgres else ("1", "0", "text")
        for start in range(first, last + 1, _AT_ONCE):
            some = numbers(self._dialect, start, min(last, start + _AT_ONCE - 1))
            names = {"deletion": DELETE_IMAGES, "upload": PROCESS_IMAGES}
            every = {**names, "id": _ID[self._dialect], "at": _AT[self._dialect], "key": _KEY[self._dialect], **values}
            filled = statement.format(numbers=some, pictures=_PICTURES, json=json, **every)
            filled = filled.replace("{count}", str(self.count)).replace("{yes}", yes).replace("{no}", no)
            connection.exec_driver_sql(filled.replace("%", "%%") if is_postgres else filled)
            connection.commit()

    def _fill(self, connection: Connection) -> None:
        count, last, at = self.count, self.count + self.opened, _AT[self._dialect]
        ended = {"ended": at, "token": "NULL", "lease": "NULL"}
        state = "CASE WHEN i % 200 = 7 THEN 'failed' ELSE 'succeeded' END"
        result = """'["https://pictures.example.org/media/dreams/20260101/' || {id} || '.jpg"]'"""
        result = result.format(id=_ID[self._dialect])
        self._run(connection, _TASK, 1, count, **ended, state=state, result=result)
        just_now = {"at": _JUST_NOW[self._dialect]}
        waiting = {**just_now, "ended": "NULL", "token": "NULL", "lease": "NULL", "result": "NULL", "state": "'queued'"}
        self._run(connection, _TASK, count + 1, last, **waiting)
        late = "'2999-01-01 00:00:00.000000'" + ("::timestamptz" if self._dialect == "postgresql" else "")
        running = {
            **just_now,
            "ended": "NULL",
            "token": "'token' || i",
            "lease": late,
            "result": "NULL",
            "state": "'running'",
        }
        self._run(connection, _TASK, last + 1, last + 100, **running)
        of_task = "k <= i % 3 AND i % 20 <> 19"
        state = "CASE WHEN i % 200 = 7 THEN 'failed' WHEN i % 50 = 3 THEN 'deleted' ELSE 'completed' END"
        week = f"i % 200 = 7 AND i > {count} * 53 / 60"
        staged = f"CASE WHEN {week} THEN 'staging/' || {{id}} || k END".format(id=_ID[self._dialect])
        old = {"state": state, "staged": staged, "swept": "{yes}", "dream": "(i / 10)", "has": of_task}
        self._run(connection, _IMAGE, 1, count, **old)
        staged = f"'staging/' || {_ID[self._dialect]} || k"
        pending = {
            **just_now,
            "state": "'pending'",
            "staged": staged,
            "swept": "{no}",
            "dream": "(i / 10)",
            "has": of_task,
        }
        self._run(connection, _IMAGE, count + 1, last + 100, **pending)
        # One dream with very many pictures.
        large = {"state": "'completed'", "staged": "NULL", "swept": "{no}", "dream": str(_LARGE_DREAM), "has": "k = 0"}
        large["key"] = "'large' || i"
        self._run(connection, _IMAGE, 1, self.large, **large)
        self._run(connection, _DREAM, 1, count // 10)

    def ended(self) -> int:
        """The number of a random upload that has succeeded."""
        return random.randrange(1, self.count // 200) * 200 + 1

    def waiting(self) -> str:
        """The id of a random task that waits."""
        return _task_id(self.count + random.randint(1, self.opened))


def _run_queries(filled: _Filled) -> dict[str, Callable[[Session], object]]:
    """The queries of a run, from the call that is accepted to the end that is announced."""

    def hold(session: Session) -> tasks.Claim:
        claim = tasks.claim(session, filled.waiting(), 60)
        assert claim is not None
        return claim

    def then(step: Callable[[Session, tasks.Claim], object]) -> Callable[[Session], object]:
        def prepared(session: Session) -> Callable[[], object]:
            claim = hold(session)
            return lambda: step(session, claim)

        return prepared

    def complete(session: Session, claim: tasks.Claim) -> Callable[[], object]:
        images.begin_task(session, claim.task_id, "dream", [])
        found = images.of_task(session, claim.task_id)
        return lambda: [images.complete(session, each.id, url=f"https://x/{each.id}") for each in found]

    last = filled.count + filled.opened
    tokens = [f"token{last + n}" for n in range(1, 9)]
    return {
        "accept an upload": lambda session: _accept(session),
        "claim": hold,
        "refuse a claim": lambda session: tasks.refusal(session, _task_id(filled.ended())),
        "check a lease": then(tasks.check_lease),
        "renew 8 leases": lambda session: tasks.renew(session, tokens, 60),
        "begin its pictures": then(lambda session, claim: images.begin_task(session, claim.task_id, "dream", [])),
        "its pictures": lambda session: images.of_task(session, _task_id(filled.ended())),
        "complete its pictures": lambda session: complete(session, hold(session)),
        "finish": then(lambda session, claim: tasks.finish(session, claim, TaskState.SUCCEEDED, result=[])),
        "announce": lambda session: tasks.mark_announced(session, filled.waiting()),
        "a message without a row": lambda session: was_pruned(session, uuid4().hex, datetime.now(UTC)),
    }


def _accept(session: Session) -> str:
    task_id = uuid4().hex
    tasks.add(session, task_id, PROCESS_IMAGES, [1, [{"name": "a.jpg", "data": "staging/a"}], [0]])
    for index in range(2):
        row = {"dream_id": 1, "user_id": 1, "task_id": task_id, "index": index, "filename": "a.jpg"}
        session.add(DreamImage(**row, storage_key=f"dreams/20260101/{uuid4().hex}", staging_key=uuid4().hex))
    session.flush()
    return task_id


def _page_queries(filled: _Filled) -> dict[str, Callable[[Session], object]]:
    """The queries of pages and operators."""

    def dream() -> int:
        return filled.ended() // 10

    def keys(count: int) -> list[str]:
        return [f"dreams/20260101/{filled.ended():030x}00.jpg" for _ in range(count)]

    def deep() -> tuple[int, int]:
        return random.randrange(100, 900), 1

    return {
        "owner": lambda session: dreams.owner_of(session, dream()),
        "snapshot of a dream": lambda session: images.page(session, dream()),
        "page of a dream": lambda session: images.page(session, dream(), after=(500, 0), limit=21),
        "first page of a large dream": lambda session: images.page(session, _LARGE_DREAM, limit=51),
        "later page of a large dream": lambda session: images.page(session, _LARGE_DREAM, after=deep(), limit=51),
        "newest pictures of a large dream": lambda session: images.page(
            session, _LARGE_DREAM, order=ListOrder.NEWEST, limit=51
        ),
        "failed pictures of a large dream": lambda session: images.page(
            session, _LARGE_DREAM, states={ImageState.FAILED}, limit=51
        ),
        "an upload's part of a large dream": lambda session: images.page(
            session, _LARGE_DREAM, task_id=_task_id(random.randint(1, filled.large)), limit=51
        ),
        "positions in a large dream": lambda session: images.positions_of(session, _LARGE_DREAM, ["https://x/1"]),
        "media": lambda session: images.by_key(session, *keys(1)),
        "keys of a deletion": lambda session: images.by_keys(session, keys(20)),
        "pending, in all": lambda session: images.count_pending(session, 10_000),
        "pending of a dream": lambda session: images.count_pending(session, 10_000, dream_id=dream()),
        "pending of a large dream": lambda session: images.count_pending(session, 10_000, dream_id=_LARGE_DREAM),
        "pending of a user": lambda session: images.count_pending(session, 10_000, user_id=dream() // 10),
        "metrics: tasks that wait": backlog.waiting,
        "metrics: counts": backlog.counts,
        "dlq list": lambda session: dead_letters.list_dead(session, limit=100),
        "dlq show": lambda session: dead_letters.find(session, _task_id(filled.ended() + 6)),
    }


def _sweep_queries() -> dict[str, Callable[[Session], object]]:
    """The queries of the scheduler: some are for hundreds of rows at once."""
    return {
        "a page of overdue tasks": lambda session: tasks.overdue(session, 30, limit=1000),
        "tasks overdue, counted": lambda session: tasks.count_overdue(session, 30),
        "unannounced": lambda session: tasks.unannounced(session, 5, 200),
        "newest of the timetable": lambda session: tasks.newest_of(session, "cleanup-expired-tokens:"),
        "staged keys": lambda session: images.staged_keys(session, [uuid4().hex for _ in range(500)]),
        "staged bytes of ended pictures": lambda session: images.staged_ended(session, 7 * 86400, 500),
        "unswept pictures": lambda session: images.unswept(session, 500),
    }


def _time(database: Database, query: Callable[[Session], object], times: int) -> list[float]:
    """Milliseconds of each call; what a call prepares and what it changes does not count and is rolled back."""
    took = []
    for _ in range(times):
        with Session(database.engine) as session:
            session.connection()
            begun = time.perf_counter()
            prepared = query(session)
            while callable(prepared):
                begun = time.perf_counter()
                prepared = prepared()
            took.append((time.perf_counter() - begun) * 1000)
            session.rollback()
    return took


@contextmanager
def _sweep(database: Database, redis_url: str) -> Iterator[Sweep]:
    url = database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    settings = Settings(database_url=url, broker_url=redis_url, redis_prefix=f"rows-{uuid4().hex}")
    connections = Connections(settings, database=database)
    try:
        yield Sweep(settings, connections)
    finally:
        client = connections.broker.client
        for key in client.scan_iter(f"{settings.redis_prefix}*", count=1000):
            client.delete(key)
        connections.close()


def _told(name: str, took_ms: list[float], limit_ms: float) -> None:
    is_over = statistics.median(took_ms) > limit_ms
    print(f"  {name:<34} {quantiles(took_ms)}{'   OVER' if is_over else ''}", flush=True)


def _prune(filled: _Filled) -> None:
    database = filled.database

    def accept() -> None:
        with database.begin() as session:
            _accept(session)

    def claim() -> None:
        with database.begin() as session:
            claim = tasks.claim(session, filled.waiting(), 60)
        if claim is not None:
            with database.begin() as session:
                tasks.requeue(session, claim)

    def page() -> None:
        with database.read() as session:
            images.page(session, filled.ended() // 10)

    calls = {"accept": accept, "claim and requeue": claim, "list": page}
    with Others(calls) as idle:
        time.sleep(10)
    print(f"  nothing else: {idle.told()}", flush=True)
    ttl_s = _DAYS * 86400 * 0.8
    olds: dict[str, OldTasks | OldTombstones] = {
        "tasks": OldTasks(ttl_s, is_failed=False),
        "failed tasks": OldTasks(ttl_s, is_failed=True),
        "tombstones": OldTombstones(ttl_s),
    }
    for name, old in olds.items():
        with Others(calls) as others:
            begun = time.perf_counter()
            removed = sum(in_batches(database, old.delete))
            took_s = time.perf_counter() - begun
        print(f"  {removed} {name} removed in {took_s:.1f} s: {others.told()}", flush=True)


def _measure(database: Database, count: int, opened: int, redis_url: str) -> None:
    begun = time.perf_counter()
    filled = _Filled(database, count, opened)
    print(f"  {count} tasks filled in {time.perf_counter() - begun:.0f} s", flush=True)
    for queries, limit_ms in (
        ({**_run_queries(filled), **_page_queries(filled)}, _LIMIT_MS),
        (_sweep_queries(), _SWEEP_LIMIT_MS),
    ):
        for name, query in queries.items():
            _time(database, query, 5)
            _told(name, _time(database, query, 100), limit_ms)
    with _sweep(database, redis_url) as sweep:
        sent = sweep.resend()
        took = []
        for _ in range(10):
            begun = time.perf_counter()
            sweep.resend()
            sweep.announce()
            took.append((time.perf_counter() - begun) * 1000)
        _told(f"the sweep, {sent} tasks in the queue", took, _SWEEP_LIMIT_MS)
    _prune(filled)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows")
    parser.add_argument("urls", nargs="*", default=[SERVER], metavar="URL")
    parser.add_argument("--rows", type=int, default=200_000, help="ended tasks; they have about twice as many pictures")
    parser.add_argument("--open", type=int, default=1_000, help="tasks that wait")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0", help="the broker that the sweep asks")
    given = parser.parse_args()
    for url in given.urls:
        print(make_url(url).get_backend_name(), flush=True)
        with own_database(url) as database:
            _measure(database, given.rows, given.open, given.redis)


if __name__ == "__main__":
    main()
