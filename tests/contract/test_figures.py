"""Figures from rows, for operators: on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select

from dream.db import Database, DreamImage, DreamTask, backlog, usage
from dream.db.clock import now
from dream.messages.registry import CLEANUP_TOKENS, PROCESS_IMAGES
from dream.messages.states import ImageState, TaskState
from dream.runs.figures import History


def add_task(database: Database, **columns: Any) -> None:
    with database.begin() as session:
        session.add(DreamTask(**{"id": uuid4().hex, "name": PROCESS_IMAGES, "args": [7], **columns}))


def ended(database: Database, state: TaskState, ago_s: float, *, is_announced: bool = True) -> None:
    announced = now() if is_announced else None
    add_task(database, state=state, finished_at=now(-ago_s), announced_at=announced)


def test_history_counts_ended_tasks_by_minute_and_keeps_minutes_whose_rows_are_gone(database: Database) -> None:
    history = History(lambda: database)
    for _ in range(3):
        ended(database, TaskState.SUCCEEDED, 600)
    ended(database, TaskState.FAILED, 600)
    ended(database, TaskState.FAILED, 7200)
    ended(database, TaskState.SUCCEEDED, 600, is_announced=False)
    minutes = history.look()
    assert len(minutes) == History.most
    assert [minute for minute, _ in minutes] == list(range(minutes[0][0], minutes[0][0] + History.most))
    assert [by_state for _, by_state in minutes if by_state] == [{TaskState.SUCCEEDED: 3, TaskState.FAILED: 1}]
    at = next(minute for minute, by_state in minutes if by_state)
    assert at * 60 <= (datetime.now(UTC) - timedelta(seconds=600)).timestamp() < at * 60 + 75
    with database.begin() as session:
        session.execute(delete(DreamTask))
    ended(database, TaskState.REVOKED, 0)
    again = [by_state for _, by_state in history.look() if by_state]
    assert again == [{TaskState.SUCCEEDED: 3, TaskState.FAILED: 1}, {TaskState.REVOKED: 1}]


def test_minutes_beyond_the_bound_are_unknown_and_not_zero(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_COUNTED", 2)
    for ago_s in (300, 180, 180, 60):
        ended(database, TaskState.SUCCEEDED, ago_s)
    minutes = History(lambda: database).look()
    assert len(minutes) in (2, 3)  # the newest two tasks: the minute of the older one was read in part only
    assert sum(sum(by_state.values()) for _, by_state in minutes) == 1


def test_delayed_tasks_are_counted_with_their_first_and_last_time(database: Database) -> None:
    for due_s, resent in ((60, None), (600, None), (6000, now(-5)), (-60, None)):
        add_task(database, due_at=now(due_s), resent_at=resent)
    add_task(database, name=CLEANUP_TOKENS, due_at=now(30))
    add_task(database, state=TaskState.SUCCEEDED, due_at=now(9000), finished_at=now(), announced_at=now())
    with database.read() as session:
        found = {each.name: each for each in backlog.delayed(session)}
        clock = session.scalars(select(now())).one()
    assert found[CLEANUP_TOKENS].tasks == 1
    images = found[PROCESS_IMAGES]
    assert images.tasks == 3
    assert 0 < (images.first_at - clock).total_seconds() <= 60
    assert 5000 < (images.last_at - clock).total_seconds() <= 6000


def test_storage_use_is_the_sum_of_stored_pictures_with_the_largest_users(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_AT_ONCE", 2)
    monkeypatch.setattr(usage, "_LISTED", 3)
    with database.begin() as session:
        for number, (user_id, stored) in enumerate([(1, 10), (1, 5), (2, 90), (3, 70), (4, 1), (None, 1000)]):
            session.add(picture(number, ImageState.COMPLETED, user_id=user_id, stored_bytes=stored))
        session.add(picture(90, ImageState.PENDING, user_id=2, stored_bytes=7, staging_key="a"))
        session.add(picture(91, ImageState.FAILED, user_id=2, staging_key="b"))
        session.add(picture(92, ImageState.DELETED, user_id=2, stored_bytes=5000))
    found = usage.measure(database)
    assert (found.pictures, found.stored_bytes) == (6, 1176)
    assert found.users == [(2, 1, 90), (3, 1, 70), (1, 2, 15)]
    assert found.staged == (2, 7, 1)


def picture(number: int, state: ImageState, **columns: Any) -> DreamImage:
    return DreamImage(
        dream_id=7, task_id="t", index=number, filename="a.jpg", storage_key=f"k{number}", state=state, **columns
    )
