"""Remakes of stored pictures: real runs on real rows and a real store, and deletions that come in between."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.ExifTags import Base
from sqlalchemy import update

from dream.actors.inline import run_recorded
from dream.actors.remake import remake
from dream.db import DreamImage, DreamTask, images, tasks
from dream.db.clock import now
from dream.errors import InvalidArguments, LeaseLost, ObjectMissing
from dream.imaging import Limits, Processed, process_file
from dream.messages.pictures import image_info
from dream.messages.states import ImageState, TaskState
from dream.messages.variants import made_as
from dream.producer import NOT_SENT, Producer
from dream.producer.orders import remake as order_of_remake
from dream.runs.run import Run
from dream.scheduler.removal import Orphans
from dream.settings import Settings
from dream.storage import Storage
from dream.storage.keys import object_key, variant_object_key
from tests.pictures import noise

CDN = "https://cdn.example"


@pytest.fixture
def first(environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]) -> Settings:
    """The settings at the upload: small pictures, originals kept."""
    Storage(settings).ensure_bucket(f"{settings.s3_bucket}-originals")
    return settings_of(
        environment,
        keep_originals="yes",
        originals_bucket=f"{settings.s3_bucket}-originals",
        max_edge_px=300,
        variants="thumb:64,gone:32",
    )


@pytest.fixture
def then(first: Settings, settings_of: Callable[..., Settings], environment: dict[str, str]) -> Settings:
    """The settings of the new design: larger pictures and other variants."""
    given = first.model_dump(include={"keep_originals", "originals_bucket"})
    return settings_of(environment, **given, max_edge_px=600, variants="thumb:96")


@pytest.fixture
def producer(first: Settings) -> Iterator[Producer]:
    producer = Producer(first)
    yield producer
    producer.database.dispose()


def upload(producer: Producer, settings: Settings | None = None, data: bytes | None = None) -> DreamImage:
    """The row of a picture that was uploaded and processed here, of 900 × 600 pixels by default."""
    own = Producer(settings or producer.settings, producer.connections)
    files = [{"name": "a.jpg", "data": data or noise(900, 600, form="PNG")}]
    order = own.order_upload(7, files, delivery=NOT_SENT, user_id=1)
    assert own.accept(order)
    run_recorded(own.settings, own, order.task_id)
    with producer.database.read() as session:
        (row,) = images.of_task(session, order.task_id)
    return row


def remade(producer: Producer, settings: Settings, image: DreamImage, *names: str) -> DreamImage:
    """The row after a remake with these settings."""
    order = order_of_remake(image.id, datetime.now(UTC) + timedelta(seconds=1), names or None)
    assert producer.accept(order)
    assert run_recorded(settings, producer, order.task_id) is True
    return row_of(producer, image.id)


def row_of(producer: Producer, image_id: int) -> DreamImage:
    with producer.database.read() as session:
        row = session.get(DreamImage, image_id)
    assert row is not None
    return row


def delete(producer: Producer, image: DreamImage) -> None:
    order = producer.order_deletion(7, [{"id": 0, "url": image.url or ""}], "ann", delivery=NOT_SENT)
    assert producer.accept(order)
    assert run_recorded(producer.settings, producer, order.task_id) == [True]


def objects(settings: Settings) -> set[str]:
    """All objects of the pictures' and the originals' buckets."""
    storage = Storage(settings)
    buckets = (settings.s3_bucket, settings.originals_bucket or "")
    return {key for bucket in buckets for key, _ in storage.list_keys(bucket, "")}


def stored(settings: Settings, image: DreamImage) -> httpx.Response:
    """The object that the picture's row names, as browsers get it."""
    return httpx.get(Storage(settings).presign(image.bucket or "", object_key(image)))


def named(image: DreamImage) -> set[str]:
    return {object_key(image), *map(variant_object_key, image.variants)}


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


# --- a remake


def test_a_picture_is_made_anew_from_its_original_under_other_keys(
    producer: Producer, first: Settings, then: Settings
) -> None:
    """Its URLs stay, its old objects as well, and a variant that the settings no longer name is gone."""
    before = upload(producer)
    after = remade(producer, then, before)
    assert (before.width_px, after.width_px, after.url) == (300, 600, before.url)
    assert (after.storage_key, after.remakes, after.last_remake) == (before.storage_key, 1, 1)
    assert after.made_at is not None
    assert before.made_at is not None
    assert after.made_at > before.made_at
    answer = stored(first, after)
    assert size_of(answer.content) == (600, 400)
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert {each["name"]: each["width_px"] for each in after.variants} == {"thumb": 96}
    assert after.variants[0]["url"] == before.variants[0]["url"]
    assert named(before).isdisjoint(named(after))
    assert objects(first) == named(before) | named(after) | {before.original_key}
    size = sum(each["size_bytes"] for each in after.variants) + (after.size_bytes or 0)
    assert after.stored_bytes == size + (after.original_bytes or 0)


def test_a_list_names_no_keys_of_objects(producer: Producer, then: Settings) -> None:
    remade(producer, then, upload(producer))
    (info,) = producer.list_images(7)
    assert "key" not in info["variants"][0]


def test_without_an_original_a_stored_picture_keeps_its_bytes(
    producer: Producer, settings: Settings, then: Settings
) -> None:
    """Another encoding would make a lossy picture worse; only its variants and perhaps its `Cache-Control` are new."""
    lossy = settings.model_copy(update={"output_format": "webp", "max_edge_px": 300})
    before = upload(producer, lossy)
    after = remade(producer, then, before)
    assert stored(settings, after).content == stored(settings, before).content
    assert (after.width_px, after.content_type, after.size_bytes) == (300, "image/webp", before.size_bytes)
    assert [each["width_px"] for each in after.variants] == [96]
    assert object_key(after).endswith("-1.webp")


def test_a_stored_picture_that_is_too_large_for_todays_settings_is_reduced(
    producer: Producer, settings: Settings
) -> None:
    before = upload(producer, settings)
    after = remade(producer, settings.model_copy(update={"max_edge_px": 225}), before)
    assert (before.width_px, after.width_px) == (900, 225)


def test_another_format_changes_the_object_and_not_the_url(producer: Producer, first: Settings) -> None:
    before = upload(producer)
    after = remade(producer, first.model_copy(update={"output_format": "webp"}), before)
    assert (after.url, after.storage_key) == (before.url, before.storage_key)
    assert (before.url or "").endswith(".jpg")
    assert (after.content_type, object_key(after)[-7:]) == ("image/webp", "-1.webp")
    assert stored(first, after).headers["content-type"] == "image/webp"


def test_variants_alone_are_made_anew(producer: Producer, then: Settings) -> None:
    before = upload(producer)
    after = remade(producer, then, before, "thumb")
    assert (object_key(after), after.width_px) == (object_key(before), 300)
    widths = {each["name"]: (each["width_px"], each.get("key")) for each in after.variants}
    assert widths["thumb"][0] == 96
    assert widths["thumb"][1] is not None
    assert "-1_thumb." in widths["thumb"][1]
    assert widths["gone"] == (32, None)


def test_an_older_picture_gets_the_ladder_and_keeps_its_hashes(producer: Producer, first: Settings) -> None:
    """A picture of an older release gets the hash that its pixels have; its upload is unknown."""
    before, other = upload(producer), upload(producer)
    with producer.database.begin() as session:
        session.execute(
            update(DreamImage)
            .where(DreamImage.id == other.id)
            .values(sha256=None, perceptual_hash=None, duplicate_of=1)
        )
    wider = first.model_copy(update={"widths": (100, 200, 300, 400)})
    after, aged = remade(producer, wider, before), remade(producer, wider, other)
    assert [each["name"] for each in after.variants if each["name"].startswith("w")] == ["w100", "w200"]
    assert [each.split()[1] for each in (image_info(after)["srcset"] or "").split(", ")] == ["100w", "200w", "300w"]
    assert (after.sha256, after.perceptual_hash) == (before.sha256, before.perceptual_hash)
    assert (aged.sha256, len(aged.perceptual_hash or "")) == (None, 16)


def test_what_visitors_have_asked_for_is_made_anew_and_other_formats_wait_until_they_ask_again(
    producer: Producer, then: Settings, settings_of: Callable[..., Settings], environment: dict[str, str]
) -> None:
    given = then.model_dump(include={"keep_originals", "originals_bucket"})
    lazy = settings_of(environment, **given, lazy_variants="hero:128,never:200", widths="100,1000", max_edge_px=600)
    image = upload(producer)
    with producer.database.begin() as session:
        row = session.get_one(DreamImage, image.id)
        ref = {**image.variants[0], "made_as": "64"}
        asked = [{**ref, "name": name, "url": f"{image.url}_{name}"} for name in ("hero", "hero.avif", "full.avif")]
        row.variants = [*image.variants, *asked]  # type: ignore[list-item]
    after = remade(producer, lazy, image)
    assert {each["name"]: each["width_px"] for each in after.variants} == {"hero": 128, "w100": 100}
    assert {each["name"]: made_as(after, each) for each in after.variants} == {"hero": "128", "w100": "100x"}
    alone = remade(producer, lazy, image, "never", "w1000")
    assert {each["name"] for each in alone.variants} == {"hero", "w100", "never"}
    assert object_key(alone) == object_key(after)


def test_the_focal_points_are_kept(producer: Producer, then: Settings) -> None:
    before = upload(producer)
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(focus=[0.1, 0.2], found_focus=[0.3, 0.4]))
    after = remade(producer, then, before)
    assert (after.focus, after.found_focus) == ([0.1, 0.2], [0.3, 0.4])


def test_the_facts_and_the_credit_of_an_original_can_be_kept_later(
    producer: Producer, first: Settings, then: Settings
) -> None:
    """A remake from the stored picture, which has no facts, leaves the row's; the credit is in its file."""
    exif, photo = Image.Exif(), io.BytesIO()
    exif[Base.Model], exif[Base.Artist] = "Dreamer 9", "Ada Lovelace"
    Image.open(io.BytesIO(noise(900, 600))).save(photo, "JPEG", exif=exif)
    before = upload(producer, data=photo.getvalue())
    assert before.facts is None
    assert b"Ada Lovelace" not in stored(first, before).content
    keeping = then.model_copy(update={"keep_facts": "all", "keep_copyright": True})
    after = remade(producer, keeping, before)
    assert after.facts == {"model": "Dreamer 9"}
    assert b"Ada Lovelace" in stored(first, after).content
    assert b"Dreamer 9" not in stored(first, after).content
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(original_key=None))
    again = remade(producer, keeping.model_copy(update={"max_edge_px": 200}), after)
    assert (again.remakes, again.width_px, again.facts) == (2, 200, {"model": "Dreamer 9"})
    assert b"Ada Lovelace" in stored(first, again).content
    forgetting = keeping.model_copy(update={"keep_facts": "none", "max_edge_px": 150})
    assert remade(producer, forgetting, again).facts is None


def test_a_second_task_of_the_same_pass_does_nothing(producer: Producer, then: Settings) -> None:
    image = upload(producer)
    order = order_of_remake(image.id, datetime.now(UTC) + timedelta(seconds=1))
    assert [producer.accept(order), producer.accept(order)] == [True, False]
    run_recorded(then, producer, order.task_id)
    with producer.database.begin() as session:
        again = now(0)
        session.execute(
            update(DreamTask)
            .where(DreamTask.id == order.task_id)
            .values(state=TaskState.QUEUED, finished_at=None, due_at=again)
        )
        session.execute(update(DreamImage).values(made_at=now(2)))
    assert run_recorded(then, producer, order.task_id) is False
    assert row_of(producer, image.id).last_remake == 1


def test_a_picture_whose_bytes_are_lost_stays_as_it_is(producer: Producer, then: Settings, first: Settings) -> None:
    """The original is missed and the stored picture serves; if that is missing too, the task fails for good."""
    image = upload(producer)
    Storage(first).delete(image.original_bucket or "", [image.original_key or ""])
    assert remade(producer, then, image).width_px == 300
    Storage(first).delete(image.bucket or "", [object_key(row_of(producer, image.id))])
    with pytest.raises(ObjectMissing):
        remade(producer, then, image)
    after = row_of(producer, image.id)
    assert (after.state, after.remakes) == (ImageState.COMPLETED, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["1", "2026-01-01T00:00:00+00:00", None],
        [0, "2026-01-01T00:00:00+00:00", None],
        [1, "2026-01-01T00:00:00", None],
        [1, "yesterday", None],
        [1, None, None],
        [1, "2026-01-01T00:00:00+00:00", [1]],
        [1, "2026-01-01T00:00:00+00:00", 1],
    ],
)
def test_a_strangers_wrong_arguments_are_one_error(producer: Producer, arguments: list[Any]) -> None:
    with producer.database.begin() as session:
        tasks.add(session, "stranger's", "dream.pictures.remake_image", arguments)
    with pytest.raises(InvalidArguments, match="a remake needs"):
        run_recorded(producer.settings, producer, "stranger's")


# --- old objects


def test_old_objects_go_once_no_browser_has_a_way_to_them(producer: Producer, first: Settings, then: Settings) -> None:
    """The objects of a failed remake go, too. The picture itself is there all the time."""
    before = upload(producer)
    after = remade(producer, then, before)
    Storage(first).put_bytes(first.s3_bucket, object_key(after).replace("-1.", "-2."), b"of a run that failed")
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(last_remake=2, updated_at=now()))
    leftovers = Orphans(then, producer.connections)
    assert leftovers.remove()["remade"] == 0
    assert named(before) < objects(first)
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(updated_at=now(-2 * then.media_forget_s - 601)))
    assert leftovers.remove()["remade"] == 1
    assert objects(first) == {*named(after), after.original_key}
    assert leftovers.remove()["remade"] == 0
    swept = row_of(producer, after.id)
    assert (swept.remakes, swept.first_remake, swept.last_remake) == (1, 2, 2)
    delete(producer, swept)
    assert objects(first) == set()


def test_a_deletion_takes_the_objects_of_every_remake(producer: Producer, first: Settings, then: Settings) -> None:
    image = remade(producer, first, remade(producer, then, upload(producer)))
    assert image.remakes == 2
    delete(producer, image)
    assert objects(first) == set()


# --- deletions and other runs in between


class Parts:
    """The resources of a run whose pool lets a test act before the picture is processed."""

    def __init__(self, settings: Settings, producer: Producer, folder: Path, between: Callable[[], None]) -> None:
        self.settings = settings
        self.connections = producer.connections
        self.producer = producer
        self.pool = self
        self._folder = folder
        self._between = between

    @contextmanager
    def folder(self) -> Iterator[Path]:
        yield self._folder

    def submit(self, source: Path, target: Path, limits: Limits, group: str) -> Parts:  # noqa: ARG002
        self._job = source, target, limits
        return self

    def wait(self, poll: Callable[[], None]) -> Processed:  # noqa: ARG002
        processed = process_file(*self._job)
        self._between()
        return processed

    def cancel(self) -> None:
        pass


def interrupted(
    producer: Producer, settings: Settings, image: DreamImage, folder: Path, between: Callable[[], None]
) -> bool:
    """Run a remake; `between` happens after its picture was processed, before anything is stored."""
    order = order_of_remake(image.id, datetime.now(UTC) + timedelta(seconds=1))
    assert producer.accept(order)
    with producer.database.begin() as session:
        claim = tasks.claim(session, order.task_id, 30)
    assert claim is not None
    run = Run(claim, math.inf, threading.Event(), threading.Event())
    return remake(Parts(settings, producer, folder, between), run, *claim.args)


def test_there_is_no_moment_without_a_picture(
    producer: Producer, then: Settings, first: Settings, tmp_path: Path
) -> None:
    """Before the switch the row names the old objects, after it the new ones; kept redirects still work."""
    before = upload(producer)
    seen: list[bytes] = []
    assert interrupted(
        producer, then, before, tmp_path, lambda: seen.append(stored(first, row_of(producer, before.id)).content)
    )
    old, new = stored(first, before), stored(first, row_of(producer, before.id))
    assert (old.status_code, new.status_code) == (200, 200)
    assert seen == [old.content]
    assert (size_of(old.content), size_of(new.content)) == ((300, 200), (600, 400))


def test_passes_for_other_variants_are_other_tasks() -> None:
    """Even if two of them begin at the same moment."""
    moment = datetime.now(UTC)
    names: list[list[str] | None] = [None, ["a"], ["a", "b"], ["b", "a"]]
    assert len({order_of_remake(1, moment, each).task_id for each in names}) == 3
    assert all(len(order_of_remake(2**63 - 1, moment, each).task_id) <= 155 for each in names)


@pytest.mark.parametrize("public_url", [None, CDN])
def test_a_picture_that_is_deleted_during_its_remake_stays_deleted(
    producer: Producer, first: Settings, tmp_path: Path, public_url: str | None
) -> None:
    settings = first.model_copy(update={"public_url": public_url})
    image = upload(producer, settings)
    assert interrupted(producer, settings, image, tmp_path, lambda: delete(producer, image)) is False
    assert row_of(producer, image.id).state is ImageState.DELETED
    assert objects(first) == set()


@pytest.mark.parametrize("public_url", [None, CDN])
def test_a_run_that_lost_its_task_leaves_the_picture_whole(
    producer: Producer, first: Settings, tmp_path: Path, public_url: str | None
) -> None:
    """Another run of the task has finished meanwhile; the late one stores objects, and only its own go."""
    settings = first.model_copy(update={"public_url": public_url})
    image = upload(producer, settings)

    def another() -> None:
        with producer.database.begin() as session:
            session.execute(update(DreamTask).values(lease_token=None, lease_expires_at=None))
            (task_id,) = session.scalars(DreamTask.__table__.select().where(DreamTask.id.startswith("remake-")))
        assert run_recorded(settings, producer, task_id) is True

    with pytest.raises(LeaseLost):
        interrupted(producer, settings, image, tmp_path, another)
    after = row_of(producer, image.id)
    assert (after.last_remake, after.remakes) == (2, 0 if public_url else 2)
    assert named(after) < objects(first)
    assert objects(first) == {*named(after), *named(image), image.original_key}
    assert size_of(stored(settings, after).content) == (300, 200)


# --- where the public reads the store itself


def test_under_a_public_url_the_object_is_overwritten_and_may_be_kept_for_the_forget_time(
    producer: Producer, first: Settings, then: Settings
) -> None:
    """The CDN serves the keys: their names stay, whatever the format, and no cache holds them for ever."""
    public = first.model_copy(update={"public_url": CDN})
    before = upload(producer, public)
    after = remade(producer, then.model_copy(update={"public_url": CDN, "output_format": "webp"}), before)
    assert (after.url, object_key(after), after.remakes) == (before.url, before.storage_key, 0)
    answer = stored(first, after)
    assert size_of(answer.content) == (600, 400)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "public, max-age=300"
    thumb = next(each for each in after.variants if each["name"] == "thumb")
    assert (thumb["url"], thumb["width_px"]) == (before.variants[0]["url"], 96)
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(updated_at=now(-3601)))
    Orphans(then, producer.connections).remove()
    assert objects(first) == {*named(after), after.original_key}
    delete(producer, after)
    assert objects(first) == set()


def test_a_picture_that_the_gateway_serves_gets_new_keys_even_if_a_cdn_came_later(
    producer: Producer, first: Settings
) -> None:
    """Browsers hold its old object as immutable."""
    before = upload(producer)
    after = remade(producer, first.model_copy(update={"public_url": CDN}), before)
    assert (after.url, after.remakes) == (before.url, 1)


def test_a_picture_of_a_cdn_stays_in_its_place_if_the_cdn_is_no_longer_named(
    producer: Producer, first: Settings
) -> None:
    """Its URL leads to the CDN for ever."""
    before = upload(producer, first.model_copy(update={"public_url": CDN}))
    after = remade(producer, first, before)
    assert (after.url, object_key(after)) == (before.url, before.storage_key)
    assert stored(first, after).headers["cache-control"] == "public, max-age=300"
