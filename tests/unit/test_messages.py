"""Messages and events in their exact JSON: other processes, older releases and browsers read them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import pytest
from dramatiq import Message

from dream.db import Base, Database
from dream.errors import DreamError
from dream.messages.arguments import EncodedFile, ImageFile, UrlToDelete
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import ImageRef, VariantRef
from dream.messages.registry import ALIASES, CLEANUP_TOKENS, DELETE_IMAGES, PROCESS_IMAGES, QUEUES, queue_of
from dream.messages.states import ImageState, TaskState, check_move, sources_of
from dream.producer import Producer
from dream.runs.connections import Connections
from dream.runs.sending import message_of
from dream.settings import Settings
from dream.work import messages
from tests.unit.list_broker import ListBroker

if TYPE_CHECKING:
    from dream.storage import Storage
    from dream.work.broker import AnyBroker

URL = "https://dream.example/media/dreams/20260101/0123456789abcdef0123456789abcdef.jpg"
TASKS = "dream.celery.tasks"


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- names


def test_names_of_tasks_and_queues_are_those_of_the_contract() -> None:
    assert f"{TASKS}.image_tasks.process_and_upload_images" == PROCESS_IMAGES
    assert f"{TASKS}.image_tasks.delete_dream_images" == DELETE_IMAGES
    assert f"{TASKS}.token_tasks.cleanup_expired_tokens" == CLEANUP_TOKENS
    assert QUEUES == ("default", "dream_image_processing")


def test_older_names_lead_to_the_same_tasks() -> None:
    older = {f"{TASKS}.image_tasks.celery_upload_images", f"{TASKS}.image_tasks.celery_delete_images"}
    assert set(ALIASES) == older
    assert ALIASES[f"{TASKS}.image_tasks.celery_upload_images"] == PROCESS_IMAGES
    assert ALIASES[f"{TASKS}.image_tasks.celery_delete_images"] == DELETE_IMAGES


@pytest.mark.parametrize("name", [PROCESS_IMAGES, DELETE_IMAGES, *ALIASES])
def test_images_have_a_queue_of_their_own(name: str) -> None:
    assert queue_of(name) == "dream_image_processing"


def test_scheduled_work_is_on_the_default_queue() -> None:
    assert queue_of(CLEANUP_TOKENS) == "default"


def test_options_of_messages_have_these_names() -> None:
    names = ("DELIVERY_ID", "SERIES", "COPY", "REDELIVERED", "CELERY", "UNKNOWN_FOR_S", "SUSPECT")
    options = {name: getattr(messages, name) for name in names}
    assert options == {name: name.lower() for name in names}


# --- arguments


SIZES = {"width_px": int, "height_px": int, "size_bytes": int, "content_type": str}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ImageFile, {"name": str, "data": bytes, "focus": Sequence[float] | None}),
        (EncodedFile, {"name": str, "staged": str, "data": str, "focus": Sequence[float] | None}),
        (UrlToDelete, {"id": int, "url": str}),
        (VariantRef, {"name": str, "url": str, **SIZES}),
        (
            ImageRef,
            {
                "id": int,
                "url": str,
                "position": int,
                **SIZES,
                "placeholder": str,
                "dominant_colour": str,
                "found_focus": list[float],
                "variants": list[VariantRef],
                "focus": list[float],
                "srcset": str,
                "duplicate_of": int,
            },
        ),
    ],
)
def test_an_argument_has_exactly_these_fields(kind: type, fields: dict[str, type]) -> None:
    assert get_type_hints(kind) == fields


# --- events


def test_golden_the_smallest_event() -> None:
    update = ImageUpdate(dream_id=7, status=UpdateStatus.PROCESSING, timestamp=1767225600.5)
    assert as_json(update.as_message()) == (
        '{"type": "image_update", "dream_id": 7, "status": "processing", "images": [], "timestamp": 1767225600.5}'
    )


def test_golden_an_event_with_every_field() -> None:
    update = ImageUpdate(
        dream_id=7,
        status=UpdateStatus.COMPLETED,
        images=({"id": 1, "url": URL, "position": 120},),
        timestamp=1767225600.0,
        message="1 picture ready, 1 failed",
        code="image_rejected",
        progress=100,
        errors=({"name": "梦.gif", "position": 3, "error": "the file is no picture", "code": "not_an_image"},),
        task_id="6f0c2f9e-5f0e-4a8e-9d6e-0d7f3a1b2c3d",
        steps=({"id": 1, "name": "a.jpg", "position": 120, "step": "stored"},),
        attempt=2,
        max_retries=5,
        retry_at=1767225660.0,
    )
    assert as_json(update.as_message(seq="1767225600000-0")) == (
        '{"type": "image_update", "dream_id": 7, "status": "completed", '
        f'"images": [{{"id": 1, "url": "{URL}", "position": 120}}], "timestamp": 1767225600.0, '
        '"message": "1 picture ready, 1 failed", "code": "image_rejected", "progress": 100, '
        '"errors": [{"name": "梦.gif", "position": 3, "error": "the file is no picture", "code": "not_an_image"}], '
        '"task_id": "6f0c2f9e-5f0e-4a8e-9d6e-0d7f3a1b2c3d", '
        '"steps": [{"id": 1, "name": "a.jpg", "position": 120, "step": "stored"}], '
        '"attempt": 2, "max_retries": 5, "retry_at": 1767225660.0, "seq": "1767225600000-0"}'
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message", "2 of 3 pictures done"),
        ("message", ""),
        ("code", "image_damaged"),
        ("progress", 0),
        ("errors", ({"name": "a", "position": 0, "error": "b", "code": "c"},)),
        ("task_id", "t"),
        ("steps", ({"id": 1, "name": "a.jpg", "position": 3, "step": "staged"},)),
        ("attempt", 2),
        ("max_retries", 5),
        ("retry_at", 1767225660.25),
    ],
)
def test_golden_each_optional_field_alone(field: str, value: Any) -> None:
    update = ImageUpdate(dream_id=7, status=UpdateStatus.FAILED, timestamp=1.0, **{field: value})
    expected = {"type": "image_update", "dream_id": 7, "status": "failed", "images": [], "timestamp": 1.0}
    assert as_json(update.as_message()) == as_json(
        {**expected, field: list(value) if isinstance(value, tuple) else value}
    )


def test_the_place_in_the_stream_is_there_only_where_it_is_known() -> None:
    update = ImageUpdate(dream_id=7, status=UpdateStatus.FAILED)
    assert "seq" not in update.as_message()
    assert update.as_message("5-1")["seq"] == "5-1"


def test_the_dream_is_a_number_and_the_status_a_plain_string() -> None:
    message = json.loads(as_json(ImageUpdate(dream_id=7, status=UpdateStatus.DELETE_FAILED).as_message()))
    assert message["dream_id"] == 7
    assert message["status"] == "delete_failed"


def test_statuses_are_those_of_the_contract() -> None:
    assert [str(status) for status in UpdateStatus] == [
        "processing",
        "completed",
        "failed",
        "delete_processing",
        "delete_completed",
        "delete_failed",
    ]
    going_on = {status for status in UpdateStatus if not status.is_terminal}
    assert going_on == {UpdateStatus.PROCESSING, UpdateStatus.DELETE_PROCESSING}


# --- states


def test_legal_moves_of_an_image_are_exactly_these() -> None:
    states = list(ImageState)
    moves = {(source, target) for target in states for source in sources_of(target)}
    assert moves == {
        ("pending", "processing"),
        ("pending", "failed"),
        ("processing", "pending"),
        ("processing", "completed"),
        ("processing", "failed"),
        ("failed", "pending"),
        ("pending", "deleting"),
        ("processing", "deleting"),
        ("completed", "deleting"),
        ("failed", "deleting"),
        ("deleting", "deleted"),
    }


@pytest.mark.parametrize("source", ImageState)
@pytest.mark.parametrize("target", ImageState)
def test_an_illegal_move_raises(source: ImageState, target: ImageState) -> None:
    if source in sources_of(target):
        check_move(source, target)
        return
    with pytest.raises(DreamError, match=f"cannot go from {source} to {target}"):
        check_move(source, target)


def test_a_task_ends_as_succeeded_failed_or_revoked() -> None:
    assert [str(state) for state in TaskState] == ["queued", "running", "succeeded", "failed", "revoked"]
    assert {state for state in TaskState if not state.is_terminal} == {TaskState.QUEUED, TaskState.RUNNING}


# --- messages on the broker


def golden(message: Message[Any]) -> str:
    """The bytes on the wire, but for the one field that is a clock."""
    assert isinstance(message.message_timestamp, int)
    return message.copy(message_timestamp=1767225600000).encode().decode()


def test_golden_an_upload() -> None:
    staged: EncodedFile = {"name": "梦.jpg", "staged": "staging/20260101/0123456789abcdef0123456789abcdef"}
    message = message_of(Settings(), "task-1", PROCESS_IMAGES, [7, [staged], [0]])
    assert golden(message) == (
        '{"queue_name":"dream_image_processing",'
        '"actor_name":"dream.celery.tasks.image_tasks.process_and_upload_images",'
        '"args":[7,[{"name":"\\u68a6.jpg","staged":"staging/20260101/0123456789abcdef0123456789abcdef"}],[0]],'
        '"kwargs":{},"options":{"delivery_id":"task-1:0","turn":{"group":"dream:7"}},'
        '"message_id":"task-1","message_timestamp":1767225600000}'
    )


def test_golden_the_second_retry_of_a_deletion_on_prefixed_queues() -> None:
    wanted: UrlToDelete = {"id": 3, "url": URL}
    settings = Settings(queue_prefix="blue.")
    assert golden(message_of(settings, "task-2", DELETE_IMAGES, [7, [wanted], "bob"], attempt=2)) == (
        '{"queue_name":"blue.dream_image_processing",'
        '"actor_name":"dream.celery.tasks.image_tasks.delete_dream_images",'
        f'"args":[7,[{{"id":3,"url":"{URL}"}}],"bob"],'
        '"kwargs":{},"options":{"delivery_id":"task-2:2","turn":{"group":"dream:7"}},'
        '"message_id":"task-2","message_timestamp":1767225600000}'
    )


def test_golden_bulk_pictures_of_a_known_user() -> None:
    args = [7, [{"name": "a.jpg", "staged": "staging/a"}] * 3, [0, 0, 0]]
    message = message_of(Settings(), "task-3", PROCESS_IMAGES, args, priority=0, user_id=4)
    assert message.options["turn"] == {"priority": 0, "group": "user:4", "cost": 3}


def test_golden_the_nightly_clean_up() -> None:
    task_id = "cleanup-expired-tokens:2026-01-01"
    assert golden(message_of(Settings(), task_id, CLEANUP_TOKENS, [])) == (
        '{"queue_name":"default",'
        '"actor_name":"dream.celery.tasks.token_tasks.cleanup_expired_tokens",'
        '"args":[],"kwargs":{},"options":{"delivery_id":"cleanup-expired-tokens:2026-01-01:0"},'
        '"message_id":"cleanup-expired-tokens:2026-01-01","message_timestamp":1767225600000}'
    )


class MemoryStorage:
    """The object store as a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def put_bytes(self, bucket: str, key: str, data: bytes) -> None:
        self.objects[bucket, key] = data


def test_the_message_of_a_large_photo_is_small(tmp_path: Path) -> None:
    """6 MB of photo make a message of less than 2 KB: its bytes wait in the object store."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/dream.db")
    database, storage, broker = Database(settings), MemoryStorage(), ListBroker()
    Base.metadata.create_all(database.engine)
    producer = Producer(
        settings,
        Connections(settings, database=database, storage=cast("Storage", storage), broker=cast("AnyBroker", broker)),
    )
    photo = random.Random(7).randbytes(6 * 2**20)

    task_id = producer.upload_images(7, [{"name": "photo.jpg", "data": photo}], [0])
    database.dispose()

    [(message, delay)] = broker.sent
    assert delay is None
    assert message.message_id == task_id
    assert len(message.encode()) < 2048
    [((bucket, key), data)] = storage.objects.items()
    assert (bucket, data) == (settings.staging_bucket, photo)
    assert message.args == (7, [{"name": "photo.jpg", "staged": key}], [0])
