"""The plans of the queries that run all the time: each reads what it looks for, and no table, however large."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from dream.db import (
    Database,
    backlog,
    dead_letters,
    images,
    remakes,
    retention,
    tasks,
    tokens,
    usage,
    variants,
)
from dream.db.models import DreamImage, DreamTask, RevokedToken
from dream.messages.listing import ListOrder
from dream.messages.states import ImageState, TaskState
from dream.settings import Settings
from tests.conftest import created_database, migrated_sqlite

TABLES = [each.__tablename__ for each in (DreamTask, DreamImage, RevokedToken)]
TASKS, IMAGES, TOKENS = TABLES
#: Of each table; as many more tasks and pictures are of every kind that a query looks for.
ENDED, OPEN = 100_000, 200
#: A dream with very many pictures.
LARGE, MANY = 9_000_000, 20_000
#: A plan may look at so many rows that it does not want.
MOST_IN_VAIN = 2000

_NUMBERS = {
    "postgresql": "generate_series(0, {count} - 1) AS g(i)",
    "sqlite": "(WITH RECURSIVE g(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM g WHERE i < {count} - 1) SELECT i FROM g)",
}
_TASK = """INSERT INTO {table} (id, name, args, state, due_at, created_at, finished_at, announced_at, lease_token,
    lease_expires_at, resent_at) SELECT {id} || i, 'dream.celery.tasks.image_tasks.process_and_upload_images', '[]',
    {state}, {past}, {past}, {finished}, {announced}, {token}, {lease}, {resent} FROM {numbers}"""
_IMAGE = """INSERT INTO {table} (dream_id, user_id, task_id, "index", filename, state, storage_key, staging_key,
    url, sha256, swept, created_at, updated_at) SELECT {dream}, i, {id} || i, 0, 'a.jpg', {state},
    'dreams/1/' || {id} || i, {staged}, 'http://x/dreams/1/' || {id} || i, {id} || i, {swept}, {past}, {past}
    FROM {numbers}"""
_TOKEN = "INSERT INTO {table} (jti, expires_at) SELECT {id} || i, {when} FROM {numbers}"
_TABLES = {_TASK: TASKS, _IMAGE: IMAGES, _TOKEN: TOKENS}


def fill(url: str) -> None:
    """Many rows that have ended, and a few of each kind that is looked for."""
    database = Database(Settings(database_url=url))
    dialect = database.engine.dialect.name
    past, future = "'2026-01-01 00:00:00.000000'", "'2999-01-01 00:00:00.000000'"
    yes, no = ("true", "false") if dialect == "postgresql" else ("1", "0")
    task = {"finished": "NULL", "announced": "NULL", "token": "NULL", "lease": "NULL", "resent": "NULL"}
    statements = [
        (_TASK, ENDED, {**task, "id": "'ended'", "state": "'succeeded'", "finished": past, "announced": past}),
        (_TASK, OPEN, {**task, "id": "'failed'", "state": "'failed'", "finished": past, "announced": past}),
        (_TASK, OPEN, {**task, "id": "'unsaid'", "state": "'succeeded'", "finished": past}),
        (_TASK, OPEN, {**task, "id": "'queued'", "state": "'queued'"}),
        (_TASK, OPEN, {**task, "id": "'resent'", "state": "'queued'", "resent": past}),
        (_TASK, OPEN, {**task, "id": "'held'", "state": "'running'", "token": "'token' || i", "lease": future}),
        (_IMAGE, ENDED, {"id": "'ended'", "state": "'completed'", "staged": "NULL", "swept": no, "dream": "i / 100"}),
        (_IMAGE, MANY, {"id": "'large'", "state": "'completed'", "staged": "NULL", "swept": no, "dream": f"{LARGE}"}),
        (_IMAGE, OPEN, {"id": "'queued'", "state": "'pending'", "staged": "'staged' || i", "swept": no, "dream": "i"}),
        (_IMAGE, OPEN, {"id": "'failed'", "state": "'failed'", "staged": "'left' || i", "swept": no, "dream": "i"}),
        (_IMAGE, OPEN, {"id": "'buried'", "state": "'deleted'", "staged": "NULL", "swept": yes, "dream": "i"}),
        (_TOKEN, ENDED, {"id": "'live'", "when": future}),
        (_TOKEN, OPEN, {"id": "'old'", "when": past}),
    ]
    with database.begin() as session:
        for statement, count, values in statements:
            numbers = _NUMBERS[dialect].format(count=count)
            filled = statement.format(**{**values, "past": past}, numbers=numbers, table=_TABLES[statement])
            if dialect == "postgresql":
                filled = re.sub(r"('\d{4}-\d\d-\d\d [\d:.]+')", r"\1::timestamptz", filled)
            session.execute(text(filled.replace(":", "\\:")))
    database.dispose()


class Plans:
    """Catches the plans of the statements that a database runs."""

    def __init__(self, database: Database) -> None:
        self.caught: list[str] = []
        if database.engine.dialect.name == "sqlite":
            event.listen(database.engine, "before_cursor_execute", self._explain)
        else:
            event.listen(database.engine, "connect", self._listen)

    def _explain(self, _connection: Any, cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            self.caught += [str(row[-1]) for row in rows]

    def _listen(self, connection: Any, _record: Any) -> None:
        # The server itself tells the plan of each statement: one that was made for any values, and what came of it.
        connection.prepare_threshold = 0
        connection.add_notice_handler(lambda notice: self.caught.append(notice.message_primary))
        for setting in (
            "LOAD 'auto_explain'",
            "SET auto_explain.log_min_duration = 0",
            "SET auto_explain.log_analyze = on",
            "SET plan_cache_mode = force_generic_plan",
            "SET client_min_messages = log",
        ):
            connection.execute(setting)
        connection.commit()


@pytest.fixture(scope="module")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "dream.db"
    fill(migrated_sqlite(path))
    return path


@pytest.fixture(scope="module", params=["sqlite", "sqlite, analysed", "postgresql"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Plans]]:
    """A database with many rows, and the plans of what it is asked."""
    if request.param == "postgresql":
        server, template = (request.getfixturevalue(name) for name in ("postgres_server_url", "_postgres_template"))
        with created_database(server, f"{template}_plans", template) as url:
            fill(url)
            yield from _opened(url, "ANALYZE")
    else:
        path = tmp_path_factory.mktemp("plans") / "dream.db"
        shutil.copy(request.getfixturevalue("filled_sqlite"), path)
        yield from _opened(f"sqlite:///{path}", "ANALYZE" if "analysed" in request.param else "SELECT 1")


def _opened(url: str, analyse: str) -> Iterator[tuple[Database, Plans]]:
    database = Database(Settings(database_url=url))
    with database.engine.begin() as connection:
        connection.exec_driver_sql(analyse)
    database.dispose()
    database = Database(Settings(database_url=url))
    plans = Plans(database)
    yield database, plans
    database.dispose()


CLAIM = tasks.Claim("queued0", "token", "name", (), 0, 0)
DUE = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = tasks.Overdue("queued1", "name", None, 0, 0, None, DUE)
RESENT_BEFORE = tasks.Overdue("resent1", "name", None, 0, 0, DUE, DUE)


def _hold(session: Session) -> None:
    claim = tasks.claim(session, "queued0", 10)
    assert claim is not None
    tasks.check_lease(session, claim)
    tasks.finish(session, claim, TaskState.SUCCEEDED)


QUERIES: dict[str, tuple[Callable[[Session], Any], tuple[str, ...]]] = {
    "claim, hold, finish": (_hold, ("pk_",)),
    "refusal": (lambda session: tasks.refusal(session, "held1"), ("pk_",)),
    "renew": (lambda session: tasks.renew(session, {f"token{i}": None for i in range(8)}, 10), ("leased",)),
    "overdue": (lambda session: tasks.overdue(session, 30, limit=1000), ("never_resent", "resent")),
    "overdue, next page": (lambda session: tasks.overdue(session, 30, limit=50, after=BEFORE), ("never_resent",)),
    "overdue, resent": (lambda session: tasks.overdue(session, 30, limit=50, after=RESENT_BEFORE), ("resent",)),
    "count of overdue": (lambda session: tasks.count_overdue(session, 30), ("never_resent", "resent")),
    "to send": (lambda session: tasks.to_send(session, ["queued1", "queued2"]), ("pk_",)),
    "may resend": (lambda session: tasks.may_resend(session, BEFORE, 60), ("pk_",)),
    "unannounced": (lambda session: tasks.unannounced(session, 5, 200), ("unannounced",)),
    "announced": (lambda session: tasks.mark_announced(session, "unsaid1", DUE), ("pk_",)),
    "revoked": (lambda session: tasks.revoke(session, ["queued1", "queued2"]), ("pk_",)),
    "deletions that have begun": (lambda session: tasks.begun_deletions(session, ["queued1", "queued2"]), ("pk_",)),
    "newest of the timetable": (lambda session: tasks.newest_of(session, "cleanup-expired-tokens:"), ("pk_",)),
    "waiting, for metrics": (backlog.waiting, ("never_resent", "resent")),
    "ended, for `dream top`": (lambda session: backlog.ended(session, 60), ("announced",)),
    "ended by minute": (lambda session: backlog.ended_by_minute(session, 3600), ("announced",)),
    "delayed, for operators": (backlog.delayed, ("never_resent", "resent")),
    "stored bytes by user": (lambda session: usage.of_users(session, 7, 100), ("images_stored",)),
    "stored bytes of no known user": (usage.of_nobody, ("images_stored",)),
    "staged files": (usage.staged, ("staged",)),
    "a picture with its facts": (lambda session: images.detail(session, LARGE, 1000), ()),
    "counts, for metrics": (backlog.counts, ("leased", "failed", "images_pending")),
    "last success of the timetable": (
        lambda session: backlog.last_success(session, "cleanup-expired-tokens:"),
        ("pk_",),
    ),
    "dead letters": (lambda session: dead_letters.list_dead(session, limit=100), ("failed",)),
    "dead letters, next page": (
        lambda session: dead_letters.list_dead(session, limit=50, after=(datetime.now(UTC), "failed7")),
        ("failed",),
    ),
    "ids of dead letters": (lambda session: dead_letters.ids_of_dead(session, older_than_s=5), ("failed",)),
    "dead letter": (lambda session: dead_letters.find(session, "failed1"), ("pk_",)),
    "awaited variants": (lambda session: variants.states_of(session, ["queued1", "queued2", "none"]), ("pk_",)),
    "images of a task": (lambda session: images.of_task(session, "queued1"), ("task_id",)),
    "a task begins": (lambda session: images.begin_task(session, "queued1", "bucket", []), ("task_id",)),
    "a task's pictures fail": (
        lambda session: images.move_task(session, "queued2", ImageState.PENDING, ImageState.FAILED, "why"),
        ("task_id",),
    ),
    "list of a dream": (lambda session: images.list_images(session, 700), ("images_visible",)),
    "page of a dream": (lambda session: images.page(session, 700, after=(0, 70_010), limit=20), ("images_visible",)),
    "first page of a large dream": (lambda session: images.page(session, LARGE, limit=21), ("images_visible",)),
    "page of a large dream": (
        lambda session: images.page(session, LARGE, after=(0, 1000), limit=21),
        ("images_visible",),
    ),
    "newest pictures of a large dream": (
        lambda session: images.page(session, LARGE, limit=21, order=ListOrder.NEWEST),
        ("images_newest",),
    ),
    "older pictures of a large dream": (
        lambda session: images.page(session, LARGE, after=(110_000,), limit=21, order=ListOrder.NEWEST),
        ("images_newest",),
    ),
    "stored pictures of a large dream": (
        lambda session: images.page(session, LARGE, limit=21, states={ImageState.COMPLETED}),
        ("images_visible",),
    ),
    "newest stored pictures of a large dream": (
        lambda session: images.page(
            session, LARGE, limit=21, order=ListOrder.NEWEST, states={ImageState.COMPLETED, ImageState.FAILED}
        ),
        ("images_newest",),
    ),
    "failed pictures of a large dream": (
        lambda session: images.page(session, LARGE, after=(-1, 0), limit=21, states={ImageState.FAILED}),
        ("dream_id_state",),
    ),
    "newest unfinished pictures of a large dream": (
        lambda session: images.page(
            session, LARGE, limit=21, order=ListOrder.NEWEST, states={ImageState.PENDING, ImageState.PROCESSING}
        ),
        ("dream_id_state",),
    ),
    "an upload's part of a large dream": (
        lambda session: images.page(session, LARGE, task_id="large7", limit=21),
        ("task_id",),
    ),
    "positions": (lambda session: images.positions_of(session, 700, ["http://x/dreams/1/ended70001"]), ("uq_",)),
    "the same upload in a large dream": (
        lambda session: images.twin_of(session, DreamImage(id=0, dream_id=LARGE, sha256="large7")),
        ("images_hashed",),
    ),
    "media": (lambda session: images.by_key(session, "dreams/1/ended7"), ("uq_",)),
    "a variant": (lambda session: images.by_stem(session, "dreams/1/ended7", ["jpg", "webp"]), ("uq_",)),
    "keys of a deletion": (lambda session: images.by_keys(session, ["dreams/1/ended7.jpg"]), ("uq_",)),
    "stems of a deletion": (lambda session: images.by_keys(session, ["dreams/1/ended7"], ["jpg", "webp"]), ("uq_",)),
    "pending in all": (lambda session: images.count_pending(session, 10_000), ("images_pending",)),
    "pending of a dream": (lambda session: images.count_pending(session, 10_000, dream_id=7), ("dream_id_state",)),
    "pending of a user": (lambda session: images.count_pending(session, 10_000, user_id=7), ("images_pending",)),
    "staged keys": (lambda session: images.staged_keys(session, ["staged7", "staged8"]), ("staged",)),
    "staged leftovers": (lambda session: images.staged_ended(session, 60, 500), ("staged_ended",)),
    "staged leftovers, next page": (lambda session: images.staged_ended(session, 60, 500, (DUE, 7)), ("staged_ended",)),
    "unswept": (lambda session: images.unswept(session, 50), ("unswept",)),
    "unswept, next page": (lambda session: images.unswept(session, 50, (DUE, 7)), ("unswept",)),
    "failed and unswept": (lambda session: images.take_failed(session, [7, 8]), ()),
    "stored bytes of a user": (lambda session: images.stored_by(session, 7), ("images_stored",)),
    "pictures of older releases": (lambda session: images.measure(session, 50), ("images_unmeasured",)),
    "objects of older remakes": (lambda session: remakes.outdated(session, 60, 500), ("images_outdated",)),
    "objects of older remakes, next page": (
        lambda session: remakes.outdated(session, 60, 500, (DUE, 7)),
        ("images_outdated",),
    ),
    "pictures of a pass": (lambda session: remakes.page(session, remakes.Chosen(DUE), after=70_000, limit=100), ()),
    "tasks of a pass": (lambda session: remakes.states_of(session, ["queued1", "ended7"]), ("pk_",)),
    "token": (lambda session: tokens.is_revoked(session, "live7"), ("pk_",)),
    "old tasks": (lambda session: retention.OldTasks(60, is_failed=False).delete(session, 100), ("announced", "pk_")),
    "old failed tasks": (
        lambda session: retention.OldTasks(60, is_failed=True).delete(session, 100),
        ("failed", "pk_"),
    ),
    "old tombstones": (lambda session: retention.OldTombstones(60).delete(session, 100), ("tombstones",)),
    "a message without a row": (lambda session: retention.was_pruned(session, "t", datetime.now(UTC)), ("task_id",)),
    "expired tokens": (lambda session: tokens.Expired().delete(session, 100), ("expires_at",)),
}


@pytest.mark.parametrize("query", QUERIES)
def test_no_query_reads_a_table(large: tuple[Database, Plans], query: str) -> None:
    """On PostgreSQL with the plan that serves any values; on SQLite whether the table was analysed or not."""
    database, plans = large
    ask, indexes = QUERIES[query]
    plans.caught.clear()
    with database.begin() as session:
        session.connection()
        plans.caught.clear()
        ask(session)
    told = "\n".join(plans.caught)
    assert told
    scans = re.findall(rf"(?:Seq Scan on|SCAN)\s+(?:{'|'.join(TABLES)})\b(?! USING)", told)
    assert not scans, told
    in_vain = sum(int(count) for count in re.findall(r"Rows Removed by (?:Filter|Index Recheck): (\d+)", told))
    assert in_vain <= MOST_IN_VAIN, told
    for index in indexes:
        # SQLite has names of its own for the indexes of keys.
        names = (index, "autoindex") if index in ("pk_", "uq_") else (index,)
        assert any(name in told for name in names), told
