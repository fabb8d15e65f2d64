"""The web layer's calls: staged, recorded, sent; and what is left when a server is away (nothing half accepted)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, make_url, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dream.db import DreamImage, DreamTask, images
from dream.errors import DatabaseUnavailable, InvalidArguments, ObjectStoreUnavailable
from dream.messages.registry import IMAGES_QUEUE
from dream.messages.states import ImageState
from dream.producer import Producer
from dream.settings import Settings
from dream.storage import Storage
from dream.work.broker.redis import RedisBroker
from tests.network import Proxy
from tests.old_system import waiting

PICTURE = {"name": "a.jpg", "data": b"not decoded here"}


def counts(producer: Producer, settings: Settings) -> dict[str, int]:
    """The stored things: tasks, images, staged objects, queued messages."""
    broker = producer.broker
    assert isinstance(broker, RedisBroker)
    with producer.database.read() as session:
        return {
            "tasks": session.scalar(select(func.count()).select_from(DreamTask)) or 0,
            "images": session.scalar(select(func.count()).select_from(DreamImage)) or 0,
            "staged": len(list(Storage(settings).list_keys(settings.s3_bucket, ""))),
            "messages": broker.client.llen(f"{settings.redis_prefix}:{IMAGES_QUEUE}"),
        }


NOTHING = {"tasks": 0, "images": 0, "staged": 0, "messages": 0}


def test_an_accepted_upload_is_staged_recorded_and_sent(producer: Producer, settings: Settings) -> None:
    task_id = producer.upload_images(7, [PICTURE, PICTURE], [3, 3])
    assert counts(producer, settings) == {"tasks": 1, "images": 2, "staged": 2, "messages": 1}
    with producer.database.read() as session:
        rows = images.of_task(session, task_id)
    assert [(row.index, row.position, row.state) for row in rows] == [(0, 3, ImageState.PENDING)] * 1 + [
        (1, 3, ImageState.PENDING)
    ]


def test_the_priority_of_a_call_is_in_its_message(producer: Producer, settings: Settings) -> None:
    """Without one it is 5, which no message names. Another number is refused, and nothing is stored."""
    for priority in (None, 9, 0):
        producer.upload_images(7, [PICTURE], [0], priority=priority)
    producer.delete_images(7, [{"id": 1, "url": "http://x/media/dreams/1/a.jpg"}], "ann", priority=8)
    sent = [each["options"].get("turn", {}) for each in waiting(settings, IMAGES_QUEUE)]
    assert [turn.get("priority") for turn in sent] == [None, 9, 0, 8]
    before = counts(producer, settings)
    for wrong in (10, -1, True, "9"):
        with pytest.raises(InvalidArguments, match="priority"):
            producer.upload_images(7, [PICTURE], [0], priority=wrong)  # type: ignore[arg-type]
    assert counts(producer, settings) == before


def test_a_queued_6_mb_photo_costs_the_broker_under_2_kb(producer: Producer, settings: Settings) -> None:
    """Measured by the server: everything under the prefix, before and after."""
    broker = producer.broker
    assert isinstance(broker, RedisBroker)
    producer.upload_images(7, [{"name": "photo.jpg", "data": os.urandom(6_000_000)}], [0])
    used = sum(broker.client.memory_usage(key) or 0 for key in broker.client.scan_iter(f"{settings.redis_prefix}:*"))
    assert 0 < used < 2048


@pytest.mark.parametrize(
    ("dream_id", "files", "positions"),
    [
        (7, [PICTURE], [1, 2]),
        (7, [], []),
        (7, [{"name": "a", "data": "text"}], [0]),
        (7, [PICTURE, {"name": "a", "data": b""}], [0, 0]),
        (7, [{"name": "a", "data": b"x" * 101}], [0]),
        (0, [PICTURE], [0]),
        (-1, [PICTURE], [0]),
        ("7", [PICTURE], [0]),
        (True, [PICTURE], [0]),
        (7, [{"data": b"x"}], [0]),
        (7, [PICTURE], ["0"]),
    ],
)
def test_wrong_arguments_raise_and_store_nothing(
    producer: Producer,
    environment: dict[str, str],
    settings: Settings,
    settings_of: Callable[..., Settings],
    dream_id: object,
    files: list[object],
    positions: list[object],
) -> None:
    strict = Producer(settings_of(environment, max_upload_bytes=100))
    with pytest.raises(InvalidArguments):
        strict.upload_images(dream_id, files, positions)  # type: ignore[arg-type]
    assert counts(producer, settings) == NOTHING
    strict.database.dispose()


def test_a_broker_that_is_away_does_not_refuse_the_upload(
    producer: Producer, environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]
) -> None:
    away = Producer(settings_of(environment, broker_url="redis://127.0.0.1:9/0"))
    assert away.upload_images(7, [PICTURE], [0])
    assert counts(producer, settings) == {"tasks": 1, "images": 1, "staged": 1, "messages": 0}
    away.database.dispose()


def test_an_object_store_that_is_away_leaves_nothing(
    producer: Producer, environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]
) -> None:
    away = Producer(settings_of(environment, s3_endpoint_url="http://127.0.0.1:9", s3_connect_timeout_s=0.2))
    with pytest.raises(ObjectStoreUnavailable):
        away.upload_images(7, [PICTURE], [0])
    assert counts(producer, settings) == NOTHING
    away.database.dispose()


def test_a_database_that_is_away_leaves_nothing(
    producer: Producer, environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]
) -> None:
    away = Producer(settings_of(environment, database_url="postgresql://nobody@127.0.0.1:9/none"))
    with pytest.raises(DatabaseUnavailable):
        away.upload_images(7, [PICTURE], [0])
    assert counts(producer, settings) == NOTHING


def test_an_unmigrated_database_leaves_nothing(
    producer: Producer,
    environment: dict[str, str],
    settings: Settings,
    settings_of: Callable[..., Settings],
    tmp_path: object,
) -> None:
    bare = Producer(settings_of(environment, database_url=f"sqlite:///{tmp_path}/bare.db"))
    with pytest.raises(DatabaseUnavailable):
        bare.upload_images(7, [PICTURE], [0])
    assert counts(producer, settings) == NOTHING
    bare.database.dispose()


def test_with_a_session_the_rows_follow_its_commit(producer: Producer, settings: Settings) -> None:
    """Nothing is visible and nothing is sent before the caller's transaction commits."""
    with Session(producer.database.engine) as session:
        producer.upload_images(7, [PICTURE], [0], session=session)
        broker = producer.broker
        assert isinstance(broker, RedisBroker)
        assert broker.client.llen(f"{settings.redis_prefix}:{IMAGES_QUEUE}") == 0
        session.commit()
        assert counts(producer, settings) == {"tasks": 1, "images": 1, "staged": 1, "messages": 1}
        producer.delete_images(7, [], "ann", session=session)
        session.commit()
    assert counts(producer, settings)["messages"] == 2


def test_with_a_session_a_rollback_leaves_nothing(producer: Producer, settings: Settings) -> None:
    with Session(producer.database.engine) as session:
        producer.upload_images(7, [PICTURE, PICTURE], [0, 1], session=session)
        session.rollback()
        session.commit()
    assert counts(producer, settings) == NOTHING


def test_with_a_session_a_savepoint_is_no_commit(producer: Producer, settings: Settings) -> None:
    with Session(producer.database.engine) as session:
        with session.begin_nested():
            producer.upload_images(7, [PICTURE], [0], session=session)
        broker = producer.broker
        assert isinstance(broker, RedisBroker)
        assert broker.client.llen(f"{settings.redis_prefix}:{IMAGES_QUEUE}") == 0
        session.commit()
    assert counts(producer, settings)["messages"] == 1


@pytest.mark.parametrize("session", ["a string", 5, object()])
def test_a_session_that_is_none_raises_and_stores_nothing(
    producer: Producer, settings: Settings, session: object
) -> None:
    with pytest.raises(InvalidArguments, match="session must be a SQLAlchemy Session"):
        producer.upload_images(7, [PICTURE], [0], session=session)  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="session must be a SQLAlchemy Session"):
        producer.delete_images(7, [], "ann", session=session)  # type: ignore[arg-type]
    assert counts(producer, settings) == NOTHING


def test_a_deletion_hides_its_images_at_once(producer: Producer, settings: Settings) -> None:
    producer.upload_images(7, [PICTURE, PICTURE], [0, 1])
    with producer.database.read() as session:
        first, _ = images.list_images(session, 7)
    producer.delete_images(7, [{"id": first.id}, {"id": 99, "url": "https://elsewhere/x.jpg"}], "ann")
    with producer.database.read() as session:
        assert [row.id for row in images.list_images(session, 7)] != [first.id]
        assert len(images.list_images(session, 7)) == 1


@pytest.mark.parametrize("end", [".webp", "_thumb.webp", "-2_thumb.webp", ".webp?exp=1&signature=x"])
def test_a_deletion_by_any_url_of_a_picture_deletes_the_picture(
    producer: Producer, settings: Settings, end: str
) -> None:
    """Of one of its variants, signed, or as a remake has stored it; a picture of another dream stays."""
    producer.upload_images(7, [PICTURE], [0])
    producer.upload_images(8, [PICTURE], [0])
    with producer.database.begin() as session:
        stems = [images.list_images(session, dream_id)[0].storage_key for dream_id in (7, 8)]
        for dream_id, stem in zip((7, 8), stems, strict=True):
            images.list_images(session, dream_id)[0].storage_key = f"{stem}.webp"
    producer.delete_images(7, [{"id": 1, "url": f"{settings.media_url}/{stem}{end}"} for stem in stems], "ann")
    with producer.database.read() as session:
        assert [len(images.list_images(session, dream_id)) for dream_id in (7, 8)] == [0, 1]


def test_an_empty_url_names_nothing_for_the_id_beside_it_is_the_callers(producer: Producer) -> None:
    """A failed picture's URL is empty: deleting it must not take the picture that has this id here."""
    producer.upload_images(7, [PICTURE], [0])
    with producer.database.read() as session:
        (row,) = images.list_images(session, 7)
    producer.delete_images(7, [{"id": row.id, "url": ""}], "ann")
    with producer.database.read() as session:
        assert [each.id for each in images.list_images(session, 7)] == [row.id]


@pytest.mark.parametrize(
    "urls",
    ["not a list", [{"name": "x"}], [{"id": "1", "url": "u"}], [{"id": 1, "url": 5}], [None]],
)
def test_a_wrong_deletion_raises_and_stores_nothing(producer: Producer, settings: Settings, urls: object) -> None:
    with pytest.raises(InvalidArguments):
        producer.delete_images(7, urls, "ann")  # type: ignore[arg-type]
    assert counts(producer, settings) == NOTHING


def test_a_scheduled_task_is_submitted_once(producer: Producer, settings: Settings) -> None:
    from dream.messages.registry import CLEANUP_TOKENS

    assert producer.submit(CLEANUP_TOKENS, [], task_id="cleanup-expired-tokens:2026-01-01")
    assert not producer.submit(CLEANUP_TOKENS, [], task_id="cleanup-expired-tokens:2026-01-01")


def test_with_a_scoped_session_others_of_its_factory_are_left_alone(producer: Producer, settings: Settings) -> None:
    factory = sessionmaker(producer.database.engine)
    scoped = scoped_session(factory)
    producer.upload_images(7, [PICTURE], [0], session=scoped)  # type: ignore[arg-type]
    scoped.commit()
    assert counts(producer, settings) == {"tasks": 1, "images": 1, "staged": 1, "messages": 1}
    with factory() as other:
        other.execute(select(1))
        other.commit()
    scoped.remove()


def test_with_a_session_that_is_closed_without_a_commit_nothing_is_left(producer: Producer, settings: Settings) -> None:
    with Session(producer.database.engine) as session:
        producer.upload_images(7, [PICTURE], [0], session=session)
    assert counts(producer, settings) == NOTHING


# --- a COMMIT of which nobody heard


@pytest.fixture
def network(postgres_url: str) -> Iterator[Proxy]:
    server = make_url(postgres_url)
    network = Proxy((server.host or "127.0.0.1", server.port or 5432))
    yield network
    network.close()


@pytest.fixture
def far(settings: Settings, postgres_url: str, network: Proxy) -> Iterator[Producer]:
    """A producer whose database lies behind a network that can be cut."""
    url = make_url(postgres_url).set(host="127.0.0.1", port=network.port).render_as_string(hide_password=False)
    far = Producer(settings.model_copy(update={"database_url": url}))
    yield far
    far.database.dispose()


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_whose_answer_was_lost_is_looked_up(
    far: Producer, network: Proxy, settings: Settings, committed: bool
) -> None:
    """If it took place, the call returns as ever; if not, nothing is left of it."""
    with network.commits_cut(committed=committed, times=2) as cuts:
        if committed:
            far.upload_images(7, [PICTURE])
        else:
            with pytest.raises(DatabaseUnavailable, match="nothing was accepted"):
                far.upload_images(7, [PICTURE])
    assert len(cuts) == 2
    assert counts(far, settings) == ({"tasks": 1, "images": 1, "staged": 1, "messages": 1} if committed else NOTHING)


def test_where_nobody_knows_whether_it_was_accepted_its_bytes_stay(
    far: Producer, network: Proxy, settings: Settings
) -> None:
    """The rows are there, and so is what they need."""
    with network.commits_cut(committed=True, then_away=True), pytest.raises(DatabaseUnavailable, match="not known"):
        far.upload_images(7, [PICTURE])
    assert counts(far, settings) == {"tasks": 1, "images": 1, "staged": 1, "messages": 0}


def test_with_a_session_whose_commit_went_unanswered_the_bytes_stay(
    far: Producer, network: Proxy, settings: Settings
) -> None:
    """The caller cannot know either; the sweep sends what was committed, and the nightly one takes what was not."""
    with Session(far.database.engine) as session:
        far.upload_images(7, [PICTURE], session=session)
        with network.commits_cut(committed=True), pytest.raises(OperationalError):
            session.commit()
    assert counts(far, settings) == {"tasks": 1, "images": 1, "staged": 1, "messages": 0}
    with Session(far.database.engine) as session:
        far.upload_images(7, [PICTURE], session=session)
        session.rollback()
    assert counts(far, settings)["staged"] == 1


def test_an_id_that_is_taken_spoils_no_transaction_of_the_callers(producer: Producer, settings: Settings) -> None:
    producer.upload_images(7, [PICTURE], task_id="taken")
    with Session(producer.database.engine) as session:
        assert producer.upload_images(7, [PICTURE], task_id="taken", session=session) == "taken"
        producer.upload_images(7, [PICTURE], session=session)
        session.commit()
    assert counts(producer, settings) == {"tasks": 2, "images": 2, "staged": 2, "messages": 2}
