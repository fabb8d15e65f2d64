"""Rungs of the ladder that are made on demand, in the picture's own format or in one that `Accept` chose."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import cast

import pytest
from PIL import Image

from dream.actors.inline import run_recorded
from dream.db import DreamImage
from dream.messages.registry import MAKE_VARIANT
from dream.messages.variants import ask_for, task_of
from dream.pictures import Picture
from dream.producer import NOT_SENT, Producer
from dream.settings import Settings
from dream.variants import VariantSpec
from tests.pictures import noise

DREAM = 7


def animation() -> bytes:
    frames = [Image.effect_noise((160, 120), sigma).convert("RGB") for sigma in (40, 80)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def make(
    producer: Producer, settings: Settings, image_id: int, spec: VariantSpec | None, extension: str | None = None
) -> str | None:
    """Make the version as for a visitor; returns its URL."""
    with producer.database.read() as session:
        task_id, arguments = task_of(image := session.get_one(DreamImage, image_id), ask_for(image, spec, extension))
    assert producer.submit(MAKE_VARIANT, arguments, task_id=task_id, delivery=NOT_SENT)
    return cast("str | None", run_recorded(settings, producer, task_id))


def test_a_format_is_offered_once_every_width_is_there(producer: Producer, settings: Settings) -> None:
    """`Accept` lets them be made one by one. A deletion takes them all, by any of their URLs."""
    own = settings.model_copy(update={"widths": (64, 100)})
    order = producer.order_upload(DREAM, [{"name": "a", "data": noise()}], delivery=NOT_SENT)
    assert producer.accept(order)
    run_recorded(own, producer, order.task_id)
    image_id = producer.list_images(DREAM)[0]["id"]
    urls = []
    for spec in (VariantSpec.rung(64), VariantSpec.rung(100), None):
        assert Picture.of(producer.list_images(DREAM)[0]).sources == []
        urls.append(make(producer, settings, image_id, spec, "avif"))
    (source,) = Picture.of(producer.list_images(DREAM)[0]).sources
    assert source.content_type == "image/avif"
    assert source.srcset == f"{urls[0]} 64w, {urls[1]} 100w, {urls[2]} 160w"
    deletion = producer.order_deletion(DREAM, [{"id": 1, "url": urls[0] or ""}], "ann", delivery=NOT_SENT)
    assert producer.accept(deletion)
    assert run_recorded(settings, producer, deletion.task_id) == [True]
    assert list(producer.storage.list_keys(settings.s3_bucket, "dreams/")) == []


@pytest.mark.parametrize(("data", "stored"), [(noise(), ["w64", "thumb"]), (animation(), ["thumb"])])
def test_a_rung_on_demand_is_never_a_still_of_an_animation(
    producer: Producer, settings: Settings, data: bytes, stored: Sequence[str]
) -> None:
    """The task succeeds, so nobody begins it again, and the picture itself answers."""
    order = producer.order_upload(DREAM, [{"name": "a", "data": data}], delivery=NOT_SENT)
    assert producer.accept(order)
    run_recorded(settings, producer, order.task_id)
    image_id = producer.list_images(DREAM)[0]["id"]
    for spec in (VariantSpec.rung(64), VariantSpec.within("thumb", 32)):
        assert (make(producer, settings, image_id, spec) is not None) == (spec.name in stored)
    (listed,) = producer.list_images(DREAM)
    assert [each["name"] for each in listed["variants"]] == stored
    assert (listed["srcset"] is not None) == ("w64" in stored)
