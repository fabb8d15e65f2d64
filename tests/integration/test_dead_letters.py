"""Dead letters by command: listed with their reasons, replayed to success, thrown away with their bytes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from sqlalchemy import text, update

from dream.db import DreamImage, DreamPeriodic, DreamTask, dead_letters, images, tasks
from dream.db.clock import now
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import Failure, ImageState, TaskState
from dream.notifications.publish import events_key
from dream.producer import Producer
from dream.producer.dead_letters import purge, replay
from dream.runs import outcomes
from dream.scheduler.removal import Orphans
from dream.settings import Settings
from dream.storage import Storage, new_key_stem
from tests.commands import dream, only_line
from tests.conftest import wait_for
from tests.processes import Parts
from tests.store_proxy import StoreFault, StoreProxy

PICTURE = {"name": "a.jpg", "data": b"to be processed"}


def failed(producer: Producer, data: bytes = PICTURE["data"]) -> str:  # type: ignore[assignment]
    """An upload whose retries are used up."""
    task_id = producer.upload_images(7, [{"name": "a.jpg", "data": data}], [0])
    with producer.database.begin() as session:
        claim = tasks.claim(session, task_id, 30)
        assert claim is not None
        outcomes.conclude_failure(session, claim, Failure("the object store answered 503"))
    return task_id


def test_dead_letters_are_listed_and_shown_with_their_reasons(environment: dict[str, str], producer: Producer) -> None:
    task_id = failed(producer)
    producer.upload_images(7, [PICTURE], [0])
    (line,) = dream(environment, "dlq", "list").stdout.splitlines()
    assert line.split("\t")[:5] == [task_id, "process_and_upload_images", "7", "1", "0"]
    assert line.endswith("the object store answered 503")
    shown = dream(environment, "dlq", "show", task_id).stdout
    assert "a.jpg\tfailed\tthe object store answered 503" in shown


def test_words_of_the_store_are_for_operators_alone(
    environment: dict[str, str], producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """Events, pictures and results name no address of ours; `dlq show` and the worker's log do."""
    upstream = urlsplit(environment["DREAM_S3_ENDPOINT_URL"])
    store = StoreProxy((upstream.hostname or "", upstream.port or 0))
    internal = f"127.0.0.1:{store.port}"
    task_id = producer.upload_images(7, [PICTURE], [0])
    parts = Parts(environment, tmp_path)
    own = {"DREAM_S3_ENDPOINT_URL": f"http://{internal}", "DREAM_S3_READ_TIMEOUT_S": "0.2"}

    def ended() -> bool:
        with producer.database.read() as session:
            task = session.get(DreamTask, task_id)
        return task is not None and task.announced_at is not None

    try:
        with store.failing(StoreFault("GET", hangs=True)):
            worker = parts.start("worker", **own, DREAM_MAX_RETRIES="1", DREAM_RETRY_FIRST_S="0.2")
            wait_for(ended, 60, "the task's end")
    finally:
        parts.end()
        store.close()
    with redis.Redis.from_url(settings.events_url, decode_responses=True) as client:
        events = [fields["event"] for _, fields in client.xrange(events_key(settings.redis_prefix, 7))]
        result = client.get(f"celery-task-meta-{task_id}")
    with producer.database.read() as session:
        (image,) = images.of_task(session, task_id)
    assert any("attempt 2 of 2" in each for each in events)
    assert '"failed"' in events[-1]
    for said in (*events, str(result), str(image.error)):
        assert internal not in said
        assert "the object store did not answer" in said or "1 picture" in said or '"processing"' in said, said
    assert "Read timeout on endpoint URL: " in dream(environment, "dlq", "show", task_id).stdout
    assert internal not in dream(environment, "dlq", "list").stdout
    assert internal in parts.log_of(worker)


def test_an_unknown_id_is_one_clear_line(environment: dict[str, str], producer: Producer) -> None:
    waiting = producer.upload_images(7, [PICTURE], [0])
    wrong = [("show", "none"), ("replay", waiting), ("purge", "none", "--yes")]
    for arguments in wrong:
        done = dream(environment, "dlq", *arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_replayed_task_starts_anew_and_its_end_is_told(
    environment: dict[str, str], producer: Producer, tmp_path: Path
) -> None:
    """Failed, announced as failed, replayed: completed, and announced as completed."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "JPEG")
    task_id = failed(producer, file.getvalue())
    assert dream(environment, "dlq", "replay", task_id).stdout.split() == [task_id]
    parts = Parts(environment, tmp_path)
    try:
        parts.start("worker")

        def finished() -> DreamTask | None:
            with producer.database.read() as session:
                task = session.get(DreamTask, task_id)
            return task if task and task.announced_at else None

        task = wait_for(finished, what="the replayed task's end")
    finally:
        parts.end()
    assert task is not None
    assert (task.state, task.attempts) == (TaskState.SUCCEEDED, 0)
    with redis.Redis.from_url(environment["DREAM_BROKER_URL"]) as client:
        stream = client.xrevrange(f"{environment['DREAM_REDIS_PREFIX']}:events:7", count=1)
    assert b'"completed"' in stream[0][1][b"event"]


def test_replay_makes_failed_pictures_pending(producer: Producer) -> None:
    task_id = failed(producer)
    with producer.database.begin() as session:
        assert dead_letters.revive(session, task_id, new_key_stem)
        assert dead_letters.revive(session, task_id, new_key_stem) is None
        assert [row.state for row in images.of_task(session, task_id)] == [ImageState.PENDING]


def test_what_was_replayed_meanwhile_is_not_thrown_away(producer: Producer) -> None:
    """Between the list and the answer to `purge`'s question somebody may have replayed it."""
    task_id = failed(producer)
    with producer.database.begin() as session:
        dead_letters.revive(session, task_id, new_key_stem)
    with producer.database.begin() as session:
        assert dead_letters.forget(session, task_id) is None
    with producer.database.read() as session:
        assert session.get(DreamTask, task_id) is not None
        assert len(images.of_task(session, task_id)) == 1


def test_purge_removes_rows_and_bytes(environment: dict[str, str], producer: Producer, settings: Settings) -> None:
    gone, recent = failed(producer), producer.upload_images(7, [PICTURE], [0])
    assert dream(environment, "dlq", "purge", "--all", "--older-than-days", "1", "--yes").stdout == ""
    assert dream(environment, "dlq", "purge", "--all", "--yes").stdout.split() == [gone]
    with producer.database.read() as session:
        assert session.get(DreamTask, gone) is None
        assert images.of_task(session, gone) == []
        assert session.get(DreamTask, recent) is not None
        (kept,) = images.of_task(session, recent)
    assert [key for key, _ in Storage(settings).list_keys(settings.s3_bucket, "")] == [kept.staging_key]


def test_purge_of_a_deletion_leaves_no_picture_that_it_has_hidden(producer: Producer, settings: Settings) -> None:
    """Its picture was neither to be seen nor to be removed: no task named it any more."""
    upload = producer.upload_images(7, [PICTURE], [0])
    with producer.database.begin() as session:
        (row,) = images.of_task(session, upload)
    producer.storage.put_bytes(settings.s3_bucket, f"{row.storage_key}.jpg", b"object")
    deletion = producer.delete_images(7, [{"id": row.id}], "anna")
    with producer.database.begin() as session:
        claim = tasks.claim(session, deletion, 30)
        assert claim is not None
        outcomes.conclude_failure(session, claim, Failure("the object store answered 503"))
    assert purge(producer, deletion) == []
    with producer.database.begin() as session:
        (row,) = images.of_task(session, upload)
        assert (row.state, row.swept) == (ImageState.DELETED, False)
        session.execute(update(DreamImage).values(updated_at=now(-3601)))
    Orphans(settings, producer.connections).remove()
    assert list(Storage(settings).list_keys(settings.s3_bucket, "")) == []


def test_a_replay_has_events_again(producer: Producer, settings: Settings) -> None:
    """Open pages show its progress; after the first end they heard nothing of the task before its second."""
    task_id = failed(producer)
    outcomes.announce(producer.connections, task_id)
    assert replay(producer, task_id)
    started = ImageUpdate(dream_id=7, status=UpdateStatus.PROCESSING, progress=1, task_id=task_id)
    producer.connections.publisher.publish(started, once=f"{task_id}:0:started")
    with redis.Redis.from_url(settings.events_url, decode_responses=True) as client:
        events = [fields["event"] for _, fields in client.xrange(events_key(settings.redis_prefix, 7))]
    assert '"processing"' in events[-1]


@pytest.mark.parametrize("action", [("replay",), ("purge", "--yes")], ids=["replay", "purge"])
def test_all_leaves_alone_what_was_replayed_meanwhile(
    environment: dict[str, str], producer: Producer, action: tuple[str, ...]
) -> None:
    """A trigger replays the second task at the moment of the action on the first."""
    oldest, second, first = (failed(producer) for _ in range(3))
    when = f"CREATE TRIGGER meanwhile AFTER UPDATE ON dream_tasks WHEN NEW.id = '{first}' BEGIN "
    with producer.database.begin() as session:
        session.execute(text(f"{when} UPDATE dream_tasks SET state = 'queued' WHERE id = '{second}'; END"))  # noqa: S608
    run = dream(environment, "dlq", *action, "--all")
    assert (run.returncode, run.stdout.split()) == (0, [first, oldest])
    assert run.stderr == "skipped 1 task: no longer failed\n"


DENIED = "<DeleteResult><Error><Key>staging/a</Key><Code>AccessDenied</Code></Error></DeleteResult>"


@pytest.mark.parametrize(
    "fault",
    [StoreFault("POST", "delete", status=200, body=DENIED, times=1), StoreFault("POST", "delete", status=403)],
    ids=["of one object", "of all"],
)
def test_purge_goes_on_if_objects_stay_and_the_next_night_deletes_them(
    environment: dict[str, str], producer: Producer, settings: Settings, fault: StoreFault
) -> None:
    """The original of a failed upload had no row any more, so nothing could find it."""
    both = [failed(producer), failed(producer)]
    with producer.database.begin() as session:
        (row,) = images.of_task(session, both[0])
        row.original_bucket, row.original_key = settings.s3_bucket, "originals/a"
    producer.storage.put_bytes(settings.s3_bucket, "originals/a", b"as it came")
    upstream = urlsplit(environment["DREAM_S3_ENDPOINT_URL"])
    store = StoreProxy((upstream.hostname or "", upstream.port or 0))
    try:
        with store.failing(fault):
            own = {"DREAM_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.port}"}
            run = dream(environment, "dlq", "purge", "--all", "--yes", **own)
    finally:
        store.close()
    assert (run.returncode, set(run.stdout.split())) == (1, set(both))
    assert "could not be deleted; the nightly clean-up tries again: " in only_line(run.stderr)
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(updated_at=now(-3601)))
    Orphans(settings, producer.connections).remove()
    assert list(Storage(settings).list_keys(settings.s3_bucket, "")) == []


def test_a_purged_id_can_be_used_again(producer: Producer) -> None:
    """The tombstones of its first use are no pictures of the second."""
    task_id = failed(producer)
    assert purge(producer, task_id) == []
    assert producer.upload_images(7, [PICTURE, PICTURE], [0, 1], task_id=task_id) == task_id
    with producer.database.read() as session:
        assert [image.state for image in images.of_task(session, task_id)] == [ImageState.PENDING] * 2


def test_purge_acts_on_every_named_task_before_it_names_those_no_longer_failed(
    environment: dict[str, str], producer: Producer
) -> None:
    """A trigger replays the first at the moment of the action on the second."""
    first, second, third = (failed(producer) for _ in range(3))
    when = f"CREATE TRIGGER meanwhile AFTER DELETE ON dream_tasks WHEN OLD.id = '{first}' BEGIN "
    with producer.database.begin() as session:
        session.execute(text(f"{when} UPDATE dream_tasks SET state = 'queued' WHERE id = '{second}'; END"))  # noqa: S608
    run = dream(environment, "dlq", "purge", first, second, third, "--yes")
    assert (run.returncode, run.stdout.split()) == (1, [first, third])
    assert only_line(run.stderr) == f"dream: no longer failed: {second}"
    own = {"DREAM_S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    with producer.database.begin() as session:
        session.execute(text("DROP TRIGGER meanwhile"))
    fourth, fifth = failed(producer), failed(producer)
    when = when.replace(first, fourth)
    with producer.database.begin() as session:
        session.execute(text(f"{when} UPDATE dream_tasks SET state = 'queued' WHERE id = '{fifth}'; END"))  # noqa: S608
    said = only_line(dream(environment, "dlq", "purge", fourth, fifth, "--yes", **own).stderr)
    assert said.startswith(f"dream: no longer failed: {fifth}; ")
    assert "could not be deleted" in said


def test_a_replay_after_its_bytes_were_removed_says_so(
    environment: dict[str, str], producer: Producer, tmp_path: Path
) -> None:
    """It retried for minutes, and then its error was that the object store did not answer."""
    task_id = failed(producer)
    with producer.database.begin() as session:
        images.forget_staged(session, [image.id for image in images.of_task(session, task_id)])
    assert replay(producer, task_id)
    parts = Parts(environment, tmp_path)
    try:
        parts.start("worker")

        def ended() -> DreamTask | None:
            with producer.database.read() as session:
                task = session.get_one(DreamTask, task_id)
            return task if task.state.is_terminal else None

        task = wait_for(ended, what="the end of the replayed task")
    finally:
        parts.end()
    assert (task.state, task.error_code, task.attempts) == (TaskState.FAILED, "upload_gone", 1)


def test_the_schedule_says_what_ran_and_what_comes(environment: dict[str, str], producer: Producer) -> None:
    (before,) = dream(environment, "schedule").stdout.splitlines()
    assert before.split("\t")[:3] == ["cleanup-expired-tokens", "never", "-"]
    assert "03:00" in before.split("\t")[3]
    producer.submit(CLEANUP_TOKENS, [], task_id=f"cleanup-expired-tokens:{date(2026, 1, 2)}")
    (after,) = dream(environment, "schedule").stdout.splitlines()
    assert after.split("\t")[1:3] == ["2026-01-02", "queued"]


def test_the_schedule_of_an_app_is_shown_too(environment: dict[str, str], producer: Producer, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from dream.compat import Celery\n"
        "app = Celery('shop')\n"
        "app.conf.beat_schedule = {'noon': {'task': 'shop.eat', 'schedule': 86400}}\n"
    )
    with producer.database.begin() as session:
        session.add(DreamPeriodic(name="noon", ran_at=datetime(2026, 1, 2, 12, tzinfo=UTC)))
    _, noon = dream(environment, "schedule", "-A", "shop", PYTHONPATH=str(tmp_path)).stdout.splitlines()
    assert noon.split("\t") == ["noon", "2026-01-02 12:00+00:00", "-", "2026-01-03 12:00+00:00"]
