"""Contract of every database: claims, leases, attempts, deaths and the sweep's queries, with SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text, update

from dream.db import (
    Database,
    Dream,
    DreamImage,
    DreamTask,
    DreamUpload,
    dead_letters,
    dreams,
    images,
    migrate,
    tasks,
    tokens,
    uploads,
)
from dream.db.clock import now
from dream.db.session import make_engine
from dream.errors import DreamError, InvalidArguments, LeaseLost, SettingsError
from dream.messages.events import UpdateStatus
from dream.messages.pictures import VariantRef, image_ref
from dream.messages.registry import DELETE_IMAGES, PROCESS_IMAGES
from dream.messages.states import Failure, ImageState, TaskState
from dream.producer import Producer
from dream.runs import outcomes
from dream.runs.connections import Connections
from dream.settings import Settings
from dream.storage import new_key_stem
from dream.variants import VariantSpec

LEASE_S = 30


@pytest.fixture
def task_id(database: Database) -> str:
    """An upload of three pictures that waits for its first run."""
    with database.begin() as session:
        tasks.add(session, "task", PROCESS_IMAGES, [1, [], []])
        session.flush()
        for index in range(3):
            key = f"dreams/20260101/{index:032x}"
            session.add(DreamImage(dream_id=1, task_id="task", index=index, filename=f"{index}.jpg", storage_key=key))
    return "task"


def claimed(database: Database, task_id: str, lease_s: float = LEASE_S) -> tasks.Claim:
    with database.begin() as session:
        claim = tasks.claim(session, task_id, lease_s)
    assert claim is not None
    return claim


def task_of(database: Database, task_id: str) -> DreamTask:
    with database.read() as session:
        task = session.get(DreamTask, task_id)
    assert task is not None
    return task


def expire_lease(database: Database) -> None:
    with database.begin() as session:
        session.execute(update(DreamTask).values(lease_expires_at=now(-1)))


def test_migrating_twice_is_fine_and_ends_at_head(database: Database, is_pooled: bool) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    migrate.upgrade(url, behind_pgbouncer=is_pooled)
    assert migrate.current(url, behind_pgbouncer=is_pooled) == migrate.head() != ""


def test_a_migration_takes_as_long_as_it_takes(database: Database, is_pooled: bool) -> None:
    """Half a minute is for statements of ours; a second process waits longer than that for the first one's tables."""
    if database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no limit on statements")
    limits = []
    for takes_long in (True, False):
        url = database.engine.url.render_as_string(hide_password=False)
        engine = make_engine(url, takes_long=takes_long, behind_pgbouncer=is_pooled)
        with engine.connect() as connection:
            limits.append(connection.scalar(text("SHOW statement_timeout")))
        engine.dispose()
    assert limits == ["0", "30s"]


def test_asking_where_a_database_stands_waits_for_no_writer(database: Database, is_pooled: bool) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    with database.begin():
        assert migrate.current(url, behind_pgbouncer=is_pooled) == migrate.head()


def test_the_models_and_the_migrations_agree(database: Database) -> None:
    """Autogenerate finds nothing to add: what Alembic made is what the models say."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from dream.db import Base

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []


def test_only_one_of_many_gets_the_claim(database: Database, task_id: str) -> None:
    """Eight threads claim at once; exactly one run starts."""
    got: list[tasks.Claim] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        with database.begin() as session:
            if claim := tasks.claim(session, task_id, LEASE_S):
                got.append(claim)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    with database.read() as session:
        assert tasks.refusal(session, task_id)[0] is tasks.Refusal.LEASED


def test_an_expired_lease_is_a_death_and_the_old_run_may_not_write(database: Database, task_id: str) -> None:
    zombie = claimed(database, task_id)
    expire_lease(database)
    successor = claimed(database, task_id)
    assert (successor.deaths, successor.attempts) == (1, 0)
    with pytest.raises(LeaseLost), database.begin() as session:
        tasks.check_lease(session, zombie)
    with pytest.raises(LeaseLost), database.begin() as session:
        tasks.finish(session, zombie, TaskState.SUCCEEDED)
    with database.begin() as session:
        assert tasks.renew(session, [zombie.token, successor.token], LEASE_S) == {successor.token}
        tasks.finish(session, successor, TaskState.SUCCEEDED, result=["url"])
    assert task_of(database, task_id).result == ["url"]


def test_only_a_task_that_lost_two_workers_must_be_claimed_alone(database: Database, task_id: str) -> None:
    """After one death it runs beside others; at the third it is taken anyhow, for it only ends."""
    for deaths, beside_others in [(0, True), (1, True), (2, False), (3, True)]:
        with database.begin() as session:
            claim = tasks.claim(session, task_id, LEASE_S, alone=False)
            assert (claim is not None) is beside_others
            if claim is None:
                assert tasks.refusal(session, task_id)[0] is tasks.Refusal.SUSPECT
                claim = tasks.claim(session, task_id, LEASE_S, alone=True)
            assert claim is not None
            assert claim.deaths == deaths
            assert tasks.refusal(session, task_id)[0] is tasks.Refusal.LEASED
        expire_lease(database)


def test_work_handed_back_is_neither_an_attempt_nor_a_death(database: Database, task_id: str) -> None:
    with database.begin() as session:
        tasks.requeue(session, tasks.claim(session, task_id, LEASE_S) or pytest.fail("no claim"))
    again = claimed(database, task_id)
    assert (again.attempts, again.deaths) == (0, 0)


def test_a_retry_counts_waits_and_frees_the_lease(database: Database, task_id: str) -> None:
    with database.begin() as session:
        claim = tasks.claim(session, task_id, LEASE_S)
        assert claim is not None
        assert tasks.retry_later(session, claim, Failure("store away"), 60) == 1
    with database.begin() as session:
        assert tasks.claim(session, task_id, LEASE_S) is None
        reason, wait_s = tasks.refusal(session, task_id)
    assert reason is tasks.Refusal.NOT_DUE
    assert 55 < wait_s <= 60
    assert task_of(database, task_id).error == "store away"


def test_success_is_never_overwritten(database: Database, task_id: str) -> None:
    claim = claimed(database, task_id)
    with database.begin() as session:
        tasks.finish(session, claim, TaskState.SUCCEEDED, result=[1])
    with pytest.raises(LeaseLost), database.begin() as session:
        outcomes.conclude_failure(session, claim, Failure("too late"))
    with database.begin() as session:
        assert tasks.claim(session, task_id, LEASE_S) is None
        assert tasks.refusal(session, task_id)[0] is tasks.Refusal.FINISHED
    assert task_of(database, task_id).state is TaskState.SUCCEEDED


def test_the_sweep_finds_what_is_overdue_and_unowned(database: Database, task_id: str) -> None:
    with database.read() as session:
        assert tasks.overdue(session, 60) == []
        assert [task.id for task in tasks.overdue(session, -1)] == [task_id]
    claimed(database, task_id)
    with database.read() as session:
        assert tasks.overdue(session, -1) == []
    expire_lease(database)
    with database.read() as session:
        assert [task.id for task in tasks.overdue(session, -1)] == [task_id]


def test_the_pages_of_what_is_overdue_hold_each_task_once_the_longest_not_sent_first(database: Database) -> None:
    """Also where many were due at the same moment, and where a page ends between the never sent and the others."""
    with database.begin() as session:
        for number in range(7):
            tasks.add(session, f"same{number}", PROCESS_IMAGES, [1, [], []])
        session.flush()
        session.execute(update(DreamTask).values(due_at=now(-100)))
        tasks.add(session, "older", PROCESS_IMAGES, [1, [], []], due_in_s=-200)
        tasks.add(session, "later", PROCESS_IMAGES, [1, [], []], due_in_s=200)
        session.flush()
        for resent, ago_s in (("same3", 50), ("same0", 60)):
            session.execute(update(DreamTask).where(DreamTask.id == resent).values(resent_at=now(-ago_s)))
    expected = ["older", "same1", "same2", "same4", "same5", "same6", "same0", "same3"]
    for limit in (1, 3, 6, 7, 100):
        found: list[tasks.Overdue] = []
        with database.read() as session:
            while page := tasks.overdue(session, 30, limit=limit, after=found[-1] if found else None):
                assert len(page) <= limit
                found += page
            counts = tasks.count_overdue(session, 30)
        assert [task.id for task in found] == expected
        assert counts == {(PROCESS_IMAGES, None): len(expected)}
    with database.read() as session:
        assert [task.id for task in tasks.overdue(session, 30, gap_s=55)] == expected[:-1]


def test_the_newest_run_of_the_timetable_is_found_among_others(database: Database) -> None:
    with database.begin() as session:
        for each in ("nightly:2026-01-09", "nightly:2026-01-10", "nightly-2:2027-01-01", "zzz", "nightly", "nightly;x"):
            tasks.add(session, each, PROCESS_IMAGES, [])
    with database.read() as session:
        newest = tasks.newest_of(session, "nightly:")
        assert newest is not None
        assert newest.id == "nightly:2026-01-10"
        assert tasks.newest_of(session, "never:") is None


def test_two_sweeps_take_turns(database: Database, task_id: str) -> None:
    """If the broker cannot be asked, the row decides who sends, and how soon again."""
    task = task_of(database, task_id)
    with database.begin() as session:
        assert tasks.may_resend(session, task, 60)
        assert not tasks.may_resend(session, task, 60)
    again = task_of(database, task_id)
    with database.begin() as session:
        assert not tasks.may_resend(session, again, 60)
        assert tasks.may_resend(session, again, 0)
        tasks.undo_resend(session, again)
    given_back = task_of(database, task_id)
    assert (given_back.resends, given_back.resent_at) == (again.resends, again.resent_at)


def test_a_move_that_the_diagram_does_not_have_raises(database: Database, task_id: str) -> None:
    """Of pictures and of tasks; and nothing was written."""
    claim = claimed(database, task_id)
    with pytest.raises(DreamError, match="cannot go from pending to completed"), database.begin() as session:
        images.move_task(session, task_id, ImageState.PENDING, ImageState.COMPLETED)
    with pytest.raises(DreamError, match="cannot end as queued"), database.begin() as session:
        tasks.finish(session, claim, TaskState.QUEUED)
    assert task_of(database, task_id).state is TaskState.RUNNING


def test_deleting_beats_completing(database: Database, task_id: str) -> None:
    claim = claimed(database, task_id)
    with database.begin() as session:
        images.move_task(session, task_id, ImageState.PENDING, ImageState.PROCESSING)
        first, *_ = images.of_task(session, task_id)
        images.mark_deleting(session, [first.id])
    with database.begin() as session:
        tasks.check_lease(session, claim)
        assert not images.complete(session, first.id, url="u")
        images.mark_deleted(session, [first.id])
        images.mark_deleting(session, [first.id])
    with database.read() as session:
        row = images.by_id(session, 1, first.id)
        assert row is not None
        assert row.state is ImageState.DELETED
        assert len(images.list_images(session, 1)) == 2
        assert images.by_id(session, 2, first.id) is None


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_renewal_of_leases_waits_for_no_locked_task(database: Database) -> None:
    """A run that waits in the middle of its transaction, for rows that a caller has locked, has locked its task."""
    with database.begin() as session:
        for name in ("waits", "works"):
            tasks.add(session, name, PROCESS_IMAGES, [1, [], []])
    waits, works = (claimed(database, name, 10) for name in ("waits", "works"))
    with database.begin() as waiting:
        tasks.check_lease(waiting, waits)
        with database.begin() as session:
            assert tasks.renew(session, [waits.token, works.token], 1000) == {waits.token, works.token}
    before, after = (task_of(database, name).lease_expires_at for name in ("waits", "works"))
    assert before is not None
    assert after is not None
    assert after - before > timedelta(seconds=900)


def test_the_facts_of_a_photo_end_with_its_deletion(database: Database, task_id: str) -> None:
    """At once; and at the latest with its objects, or with the nightly sweep, if an older release deletes it."""
    ends = (images.mark_deleting, images.mark_deleted, images.note_swept)
    with database.begin() as session:
        pictures = images.of_task(session, task_id)
        ids = [image.id for image in pictures]
        before = (ImageState.COMPLETED, ImageState.DELETING, ImageState.DELETED)
        long_ago = {"facts": {"make": "Dreamer"}, "updated_at": datetime(2020, 1, 1, tzinfo=UTC)}
        for image_id, state in zip(ids, before, strict=True):
            session.execute(update(DreamImage).where(DreamImage.id == image_id).values(state=state, **long_ago))
        assert images.detail(session, 1, ids[0]).facts == {"make": "Dreamer"}  # type: ignore[union-attr]
        assert [images.detail(session, *its) for its in ((1, ids[1]), (1, ids[2]), (2, ids[0]))] == [None] * 3
    for image_id, end in zip(ids, ends, strict=True):
        with database.begin() as session:
            end(session, [image_id])
    with database.read() as session:
        assert [image.facts for image in images.of_task(session, task_id)] == [None] * 3


def test_a_url_is_fixed_at_the_first_completion(database: Database, task_id: str) -> None:
    with database.begin() as session:
        images.move_task(session, task_id, ImageState.PENDING, ImageState.PROCESSING)
        row = images.of_task(session, task_id)[0]
        session.execute(update(DreamImage).where(DreamImage.id == row.id).values(url="first"))
        assert images.complete(session, row.id, url="second", storage_key=row.storage_key + ".jpg")
    with database.read() as session:
        found = images.by_keys(session, [row.storage_key + ".jpg"])
        assert [image.url for image in found.values()] == ["first"]


def test_what_becomes_of_a_picture_is_fixed_by_the_first_run(database: Database, task_id: str) -> None:
    """Another bucket or other variants in the settings of a later run change nothing: it writes the same keys."""
    with database.begin() as session:
        images.begin_task(
            session, task_id, "first", [VariantSpec.within("thumb", 320), VariantSpec.within("medium", 1280)]
        )
    with database.begin() as session:
        images.move_task(session, task_id, ImageState.PROCESSING, ImageState.PENDING)
        images.begin_task(session, task_id, "second", [VariantSpec.within("other", 64)])
    with database.read() as session:
        row = images.of_task(session, task_id)[0]
    assert (row.state, row.bucket, row.variant_names) == (ImageState.PROCESSING, "first", ["thumb", "medium"])
    assert row.variants == []


def test_a_first_run_without_variants_is_a_first_run(database: Database, task_id: str) -> None:
    for wanted in ([], [VariantSpec.within("thumb", 320)]):
        with database.begin() as session:
            images.begin_task(session, task_id, "bucket", wanted)
            images.move_task(session, task_id, ImageState.PROCESSING, ImageState.PENDING)
    with database.read() as session:
        assert images.of_task(session, task_id)[0].wanted_variants == []


def test_stored_variants_are_read_back(database: Database, task_id: str) -> None:
    thumb = VariantRef(name="thumb", url="u", width_px=32, height_px=24, size_bytes=9, content_type="image/jpeg")
    with database.begin() as session:
        images.begin_task(session, task_id, "bucket", [VariantSpec.within("thumb", 32)])
        row = images.of_task(session, task_id)[0]
        images.complete(session, row.id, url="u", storage_key=f"{row.storage_key}.jpg", variants=[thumb])
    with database.read() as session:
        image = images.by_stem(session, row.storage_key, ["webp", "jpg"])
    assert image is not None
    assert image_ref(image) == {"id": row.id, "url": "u", "position": 0, "variants": [thumb]}


def test_a_focal_point_is_given_and_taken_back_while_its_owner_sees_the_picture(
    database: Database, task_id: str
) -> None:
    claimed(database, task_id)
    with database.begin() as session:
        first, second, _ = images.of_task(session, task_id)
        images.mark_deleting(session, [second.id])
    for focus in ([0.25, 1.0], None):
        with database.begin() as session:
            written = images.give_focus(session, 1, first.id, focus)
            assert written is not None
            assert written.focus == focus
        with database.read() as session:
            row = session.get_one(DreamImage, first.id)
            is_null = session.scalar(text("SELECT focus IS NULL FROM dream_images WHERE id = :id"), {"id": first.id})
        assert (row.focus, bool(is_null), row.updated_at) == (focus, focus is None, first.updated_at)
    with database.begin() as session:
        assert images.give_focus(session, 1, second.id, [0, 0]) is None
        assert images.give_focus(session, 2, first.id, [0, 0]) is None


def test_a_mixed_batch_is_completed_with_errors(database: Database, task_id: str) -> None:
    claim = claimed(database, task_id)
    with database.begin() as session:
        images.move_task(session, task_id, ImageState.PENDING, ImageState.PROCESSING)
        good, _, bad = images.of_task(session, task_id)
        images.complete(session, good.id, url="u")
        images.fail(session, bad.id, "no picture", "not_an_image")
    with database.begin() as session:
        outcomes.conclude_failure(session, claim, Failure("gave up"))
    task = task_of(database, task_id)
    assert (task.state, task.result) == (TaskState.SUCCEEDED, ["u", "", ""])
    with database.read() as session:
        update_ = outcomes.update_of(session, task)
    assert update_.status is UpdateStatus.COMPLETED
    assert [error["error"] for error in update_.errors] == ["gave up", "no picture"]


def test_all_bad_is_failed(database: Database, task_id: str) -> None:
    claim = claimed(database, task_id)
    with database.begin() as session:
        outcomes.conclude_failure(session, claim, Failure("gave up"))
    task = task_of(database, task_id)
    with database.read() as session:
        assert outcomes.update_of(session, task).status is UpdateStatus.FAILED
    assert (task.state, task.attempts, task.error) == (TaskState.FAILED, 1, "gave up")


def test_a_deletion_of_nothing_allowed_is_delete_failed(database: Database) -> None:
    with database.begin() as session:
        tasks.add(session, "d", DELETE_IMAGES, [1, [{"id": 9, "url": "u"}], "bob"])
    claim = claimed(database, "d")
    with database.begin() as session:
        tasks.finish(session, claim, TaskState.SUCCEEDED, result=[False])
    with database.read() as session:
        assert outcomes.update_of(session, task_of(database, "d")).status is UpdateStatus.DELETE_FAILED


def test_unannounced_ends_are_found_once(database: Database, task_id: str) -> None:
    claim = claimed(database, task_id)
    with database.begin() as session:
        tasks.finish(session, claim, TaskState.SUCCEEDED)
        assert [task.id for task in tasks.unannounced(session, -1, 10)] == [task_id]
        tasks.mark_announced(session, task_id, session.get_one(DreamTask, task_id).finished_at)
        assert tasks.unannounced(session, -1, 10) == []


def test_an_announcement_of_the_end_before_a_replay_is_not_noted(database: Database, task_id: str) -> None:
    """Else the sweep would not repeat that of the next end, should it fail."""
    claim = claimed(database, task_id)
    with database.begin() as session:
        tasks.finish(session, claim, TaskState.FAILED)
        first = session.get_one(DreamTask, task_id).finished_at
    with database.begin() as session:
        dead_letters.revive(session, task_id, new_key_stem)
        tasks.mark_announced(session, task_id, first)
    claim = claimed(database, task_id)
    with database.begin() as session:
        tasks.finish(session, claim, TaskState.SUCCEEDED)
        tasks.mark_announced(session, task_id, first)
        assert [task.id for task in tasks.unannounced(session, -1, 10)] == [task_id]


def test_expired_revocations_go_and_others_stay(database: Database) -> None:
    clock = datetime.now(UTC)
    with database.begin() as session:
        tokens.revoke(session, "old", clock - timedelta(seconds=1), 1)
        tokens.revoke(session, "new", clock + timedelta(hours=1), 1)
    with database.begin() as session:
        tokens.revoke(session, "new", clock + timedelta(hours=1), 1)
        assert tokens.Expired().delete(session, 1000) == 1
        assert tokens.is_revoked(session, "new")
        assert not tokens.is_revoked(session, "old")


def test_an_owner_is_found_in_our_table_or_by_the_callers_query(database: Database) -> None:
    with database.begin() as session:
        session.add(Dream(id=5, user_id=3, username="ann"))
    query = "SELECT user_id + 1, username FROM dreams WHERE id = :dream_id"
    with database.read() as session:
        assert dreams.owner_of(session, 5) == dreams.Owner(3, "ann")
        assert dreams.owner_of(session, 5, query) == dreams.Owner(4, "ann")
        assert dreams.owner_of(session, 6) is None


def test_persist_outlasts_an_outage(database: Database, task_id: str) -> None:
    """A write that fails because the database is away is done when it is back."""
    from sqlalchemy.exc import OperationalError

    outages = [OperationalError("", {}, Exception()), OperationalError("", {}, Exception())]

    def write(session: object) -> str:
        if outages:
            raise outages.pop()
        return "written"

    assert database.persist(write) == "written"


def test_readers_do_not_wait_for_a_writer(database: Database, task_id: str) -> None:
    """A list is read while a transaction is open (SQLite: WAL)."""
    with database.begin() as session:
        images.move_task(session, task_id, ImageState.PENDING, ImageState.PROCESSING)
        with database.read() as reader:
            assert {image.state for image in images.list_images(reader, 1)} == {ImageState.PENDING}


# --- owners


def test_an_owner_is_registered_by_a_call_or_by_sql(database: Database) -> None:
    """Both ways of docs/settings.md, "Owners", each a second time with another user."""
    settings = Settings(database_url=database.engine.url.render_as_string(hide_password=False))
    producer = Producer(settings, Connections(settings, database=database))
    by_sql = (
        "INSERT INTO dreams (id, user_id, username) VALUES ({}, {}, '{}')"
        " ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, username = excluded.username"
    )
    for user in (dreams.Owner(3, "ann"), dreams.Owner(4, "bob")):
        producer.set_owner(1, user.user_id, user.username)
        with database.begin() as session:
            producer.set_owner(2, user.user_id, user.username, session=session)
            session.execute(text(by_sql.format(3, user.user_id, user.username)))
        with database.read() as session:
            assert [dreams.owner_of(session, dream_id) for dream_id in (1, 2, 3)] == [user] * 3
    with database.begin() as session:
        producer.set_owner(2, 5, session=session)
        session.rollback()
    with database.read() as session:
        assert dreams.owner_of(session, 2) == dreams.Owner(4, "bob")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 1), "dream_id"),
        ((True, 1), "dream_id"),
        ((1, 1.5), "user_id"),
        ((1, ""), "user_id"),
        ((1, "a" * 256), "255 characters"),
        ((1, 2**63), "user_id"),
        ((1, 1, None), "username"),
        ((1, 1, "a" * 151), "150 characters"),
        ((1, 1, "a\x00"), "not text"),
    ],
)
def test_a_wrong_owner_is_refused(database: Database, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InvalidArguments, match=said):
        Producer(Settings(), Connections(Settings(), database=database)).set_owner(*arguments)


def test_an_owner_who_is_in_the_applications_tables_is_not_ours_to_set(database: Database) -> None:
    settings = Settings(owners_sql="SELECT 1, 'ann' WHERE :dream_id = 1")
    with pytest.raises(SettingsError, match="DREAM_OWNERS_SQL is set"):
        Producer(settings, Connections(settings, database=database)).set_owner(1, 1)


@pytest.mark.parametrize("user", ["auth0|5", "05", UUID(int=5), 2**63 - 1, "9" * 19])
def test_an_owner_may_be_a_text_or_a_uuid_and_code_that_knows_numbers_alone_replaces_it(
    database: Database, user: int | str | UUID
) -> None:
    """The older release, and sites that write the table, leave the text of the earlier owner behind."""
    producer = Producer(Settings(), Connections(Settings(), database=database))
    producer.set_owner(1, user, "ann")
    with database.read() as session:
        owner = dreams.owner_of(session, 1)
        assert owner is not None
        assert owner.user == str(user)
        assert abs(owner.user_id) < 2**63
        # An application's own query gives the same owner.
        asked = dreams.owner_of(session, 1, f"SELECT '{user}', 'ann' WHERE :dream_id = 1")
    assert asked == owner
    with database.begin() as session:
        session.execute(text("UPDATE dreams SET user_id = 4 WHERE id = 1"))
        assert dreams.owner_of(session, 1) == dreams.Owner(4, "ann")
    producer.set_owner(1, 5)
    with database.read() as session:
        assert dreams.owner_of(session, 1) == dreams.Owner(5, "")


@pytest.mark.parametrize(
    ("query", "owner"),
    [
        ("SELECT '7', NULL WHERE :dream_id = 1", dreams.Owner(7, "")),
        ("SELECT NULL, 'ann' WHERE :dream_id = 1", None),
        ("SELECT 7, 'ann', 'more' WHERE :dream_id = 1", dreams.Owner(7, "ann")),
        ("SELECT 7, 'ann' WHERE :dream_id = 2", None),
    ],
)
def test_what_an_owners_query_may_give(database: Database, query: str, owner: dreams.Owner | None) -> None:
    with database.read() as session:
        assert dreams.owner_of(session, 1, query) == owner


def test_a_direct_upload_is_completed_or_expired_and_never_both(database: Database) -> None:
    """The sweep takes no row that a completion has deleted, even before its commit; the sums count what is open."""
    with database.begin() as session:
        for name, life_s in (("over", -1), ("open", 60), ("done", -1)):
            values: dict[str, Any] = {"dream_id": 7, "user_id": 3, "file_count": 2, "size_bytes": 2**40}
            session.add(DreamUpload(id=name, files=[{"staged": name}], expires_at=now(life_s), **values))
    with database.read() as session:
        assert (uploads.count_awaited(session, user_id=3), uploads.count_awaited(session, dream_id=8)) == (2, 0)
        assert uploads.total_bytes(session, 3) == 2**40
        assert uploads.find(session, 8, "open") is None
    is_sqlite = database.engine.dialect.name == "sqlite"
    with database.begin() as completing:
        assert uploads.close(completing, "done")
        assert not uploads.close(completing, "never")
        if not is_sqlite:  # there the sweep waits for the commit
            with database.begin() as sweeping:
                assert uploads.take_expired(sweeping, 10) == [[{"staged": "over"}]]
    if is_sqlite:
        with database.begin() as sweeping:
            assert uploads.take_expired(sweeping, 10) == [[{"staged": "over"}]]
    with database.begin() as session:
        assert uploads.open_among(session, ["over", "open", "done"]) == {"open"}
        assert uploads.take_expired(session, 10) == []
