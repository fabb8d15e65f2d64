"""Rows past their time go, and nothing else: on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from dream.db import Database, DreamImage, DreamPeriodic, DreamTask, dead_letters, periodic, retention, tasks
from dream.db.clock import now
from dream.messages.registry import CLEANUP_TOKENS, DELETE_IMAGES, PROCESS_IMAGES
from dream.messages.states import ImageState, TaskState
from dream.runs.outcomes import kept_of_pictures
from dream.scheduler.removal import Retention
from dream.settings import Settings

DAY_S = 86400.0


@pytest.fixture
def prune(database: Database) -> Callable[..., dict[str, int]]:
    def prune(**lives: float) -> dict[str, int]:
        url = database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
        return Retention(Settings(database_url=url, **lives), database).prune()

    return prune


def add(database: Database, task_id: str, *pictures: dict[str, Any], age_days: float = 31, **columns: Any) -> None:
    """A task that ended and was announced so long ago, with pictures that came to rest then."""
    ended = now(-age_days * DAY_S)
    values = {
        "name": PROCESS_IMAGES,
        "args": [7, [], []],
        "state": TaskState.SUCCEEDED,
        "finished_at": ended,
        "announced_at": ended,
        **columns,
    }
    with database.begin() as session:
        session.add(DreamTask(id=task_id, **values))
        for index, picture in enumerate(pictures):
            row = {"state": ImageState.COMPLETED, "dream_id": 7, "filename": "a", "updated_at": ended, **picture}
            session.add(DreamImage(task_id=task_id, index=index, storage_key=f"dreams/{task_id}/{index}", **row))


def left(database: Database, of: Any = DreamTask.id) -> list[Any]:
    with database.read() as session:
        return list(session.scalars(select(of).order_by(of)))


GONE: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "done": ({}, [{"url": "http://x/1"}]),
    "revoked": ({"state": TaskState.REVOKED}, []),
    "failed": ({"state": TaskState.FAILED}, [{"state": ImageState.FAILED, "swept": True}]),
    "deleted": ({}, [{"state": ImageState.DELETED, "swept": True}]),
    "deletion": ({"name": DELETE_IMAGES, "args": [8, [], ""]}, []),
    "failed deletion": ({"name": DELETE_IMAGES, "args": [8, [], ""], "state": TaskState.FAILED}, []),
    "a stranger's failed deletion": ({"name": DELETE_IMAGES, "args": ["x"], "state": TaskState.FAILED}, []),
    "clean-up": ({"name": CLEANUP_TOKENS, "args": []}, []),
}
KEPT: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "young": ({"age_days": 29}, []),
    "young failure": ({"age_days": 29, "state": TaskState.FAILED}, []),
    "queued": ({"state": TaskState.QUEUED, "finished_at": None, "announced_at": None}, []),
    "running": ({"state": TaskState.RUNNING, "finished_at": None, "announced_at": None}, []),
    "unsaid": ({"announced_at": None}, []),
    "unsaid failure": ({"announced_at": None, "state": TaskState.FAILED}, []),
    "staged": ({}, [{}, {"staging_key": "staging/1"}]),
    "staged failure": ({"state": TaskState.FAILED}, [{"state": ImageState.FAILED, "swept": True, "staging_key": "s"}]),
    "failed unswept": ({"state": TaskState.FAILED}, [{"state": ImageState.FAILED}]),
    "deleted unswept": ({}, [{"state": ImageState.DELETED}]),
    "in work": ({}, [{"state": ImageState.PROCESSING}]),
    "being deleted": ({}, [{"state": ImageState.DELETING, "dream_id": 9}]),
    "undone deletion": ({"name": DELETE_IMAGES, "args": [9, [], ""], "state": TaskState.FAILED}, []),
    "revoked deletion": ({"name": DELETE_IMAGES, "args": [9, [], ""], "state": TaskState.REVOKED}, []),
}


def test_what_may_go_goes_and_what_is_open_unsaid_or_unswept_stays(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    for name, (columns, pictures) in {**GONE, **KEPT}.items():
        add(database, name, *pictures, **columns)
    removed = prune()
    assert left(database) == sorted(KEPT)
    assert removed == {"tasks": 5, "failed_tasks": 3, "tombstones": 1, "entries": 0}
    states = left(database, DreamImage.state)
    assert states.count(ImageState.COMPLETED) == 3  # pictures outlive their task, also that of one which is gone
    assert states.count(ImageState.DELETED) == 1  # not swept yet
    assert sum(prune().values()) == 0


def test_each_kind_has_its_own_life_and_nought_means_for_ever(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    add(database, "done", {"state": ImageState.DELETED, "swept": True}, age_days=2)
    add(database, "failed", state=TaskState.FAILED, age_days=2)
    for_ever = {"task_ttl_s": 0, "failed_task_ttl_s": 0, "tombstone_ttl_s": 0}
    assert sum(prune(**for_ever).values()) == 0
    assert prune(**{**for_ever, "tombstone_ttl_s": DAY_S})["tombstones"] == 1
    assert prune(**{**for_ever, "failed_task_ttl_s": DAY_S})["failed_tasks"] == 1
    assert left(database) == ["done"]
    assert prune(**{**for_ever, "task_ttl_s": 3 * DAY_S})["tasks"] == 0
    assert prune(**{**for_ever, "task_ttl_s": DAY_S})["tasks"] == 1


@pytest.mark.parametrize("state", list(TaskState))
def test_a_deleted_picture_is_remembered_as_long_as_its_task_may_run(
    database: Database, prune: Callable[..., dict[str, int]], state: TaskState
) -> None:
    """A run that found no row of it, of a replayed task, say, would make one: the picture would be there again."""
    ended = {} if state.is_terminal else {"finished_at": None, "announced_at": None}
    add(database, "t", {"state": ImageState.DELETED, "swept": True}, state=state, **ended)
    may_run = state not in (TaskState.SUCCEEDED, TaskState.REVOKED)
    assert prune(task_ttl_s=0, failed_task_ttl_s=0)["tombstones"] == (0 if may_run else 1)
    if state is TaskState.FAILED:
        removed = prune()
        assert (removed["failed_tasks"], removed["tombstones"]) == (1, 1)


def test_the_rows_by_which_the_timetable_knows_its_runs_stay_for_days(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    """Rows may live very short: no scheduler may submit a date's run once more."""
    add(database, "cleanup-expired-tokens:2026-01-02", name=CLEANUP_TOKENS, args=[], age_days=2.5)
    add(database, "cleanup-expired-tokens:2026-01-01", name=CLEANUP_TOKENS, args=[], age_days=3.5)
    prune(task_ttl_s=1)
    assert left(database) == ["cleanup-expired-tokens:2026-01-02"]


@pytest.mark.slow
def test_two_schedulers_that_prune_many_rows_at_once_do_no_harm(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    """Rows that stay are among them, more than a batch has at first; each that goes is counted once."""
    with database.begin() as session:
        for index in range(3000):
            values = {"finished_at": now(-40 * DAY_S), "announced_at": now(-40 * DAY_S), "state": TaskState.SUCCEEDED}
            session.add(DreamTask(id=f"t{index:05}", name=PROCESS_IMAGES, args=[], **values))
            if index < 1000:
                key = f"dreams/{index}"
                session.add(DreamImage(dream_id=1, task_id=f"t{index:05}", index=0, filename="a", storage_key=key))
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(prune()["tasks"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 2000
    assert left(database) == [f"t{index:05}" for index in range(1000)]


def test_a_task_that_is_replayed_at_the_last_moment_stays(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    add(database, "failed", {"state": ImageState.FAILED, "swept": True}, state=TaskState.FAILED)
    with database.begin() as session:
        assert dead_letters.revive(session, "failed", lambda: "dreams/new") is not None
    prune()
    assert left(database) == ["failed"]


def test_entries_that_no_schedule_has_any_more_go(database: Database, prune: Callable[..., dict[str, int]]) -> None:
    """One that runs once a year stays while a scheduler has it; so does a run that is not sent."""
    old = datetime.now(UTC) - timedelta(days=300)
    with database.begin() as session:
        for name in ("gone", "yearly", "unsent", "of an older release"):
            session.add(DreamPeriodic(name=name, ran_at=old, seen_at=old, task_id="t" if name == "unsent" else None))
        session.flush()
        late = update(DreamPeriodic).where(DreamPeriodic.name == "of an older release")
        session.execute(late.values(seen_at=None))
        periodic.note_seen(session, ["yearly"], 3600)
    assert prune(task_ttl_s=1)["entries"] == 1
    assert left(database, DreamPeriodic.name) == ["of an older release", "unsent", "yearly"]
    with database.read() as session:
        assert periodic.ran_at(session, ["yearly"])["yearly"] == old


def test_a_message_without_a_row_is_known_by_its_time_or_its_pictures(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    def was_pruned(task_id: str, age_days: float) -> bool:
        with database.read() as session:
            return retention.was_pruned(session, task_id, datetime.now(UTC) - timedelta(days=age_days))

    assert not was_pruned("done", 400)  # nothing has ever gone
    add(database, "done", {"url": "http://x/1"}, age_days=40)
    add(database, "other", age_days=35)
    prune()
    assert was_pruned("unknown", 36)
    assert not was_pruned("unknown", 34)
    assert was_pruned("done", 0)  # its picture is there
    prune(task_ttl_s=0)
    assert was_pruned("unknown", 36)  # also once rows live for ever


def test_the_pictures_of_an_upload_say_how_it_ended(database: Database, prune: Callable[..., dict[str, int]]) -> None:
    done, refused = {"url": "http://x/1"}, {"state": ImageState.FAILED, "error": "no picture", "swept": True}
    add(database, "done", done, refused)
    add(database, "refused", refused, state=TaskState.FAILED)
    prune()
    assert left(database) == []
    with database.read() as session:
        kept, failed = kept_of_pictures(session, "done"), kept_of_pictures(session, "refused")
        assert kept_of_pictures(session, "unknown") is None
    assert kept is not None
    assert failed is not None
    assert (kept["status"], kept["result"]) == ("SUCCESS", ["http://x/1", ""])
    assert kept["date_done"] is not None
    assert (failed["status"], failed["result"]["exc_message"]) == ("FAILURE", ["no picture"])


def test_a_claim_of_a_task_that_is_gone_is_refused_as_unknown(
    database: Database, prune: Callable[..., dict[str, int]]
) -> None:
    add(database, "done")
    prune()
    with database.begin() as session:
        assert tasks.claim(session, "done", 10) is None
        assert tasks.refusal(session, "done")[0] is tasks.Refusal.UNKNOWN
