"""The Celery system that dream replaces, rebuilt from its documentation as an opponent of the whole way.

    celery -A benchmarks.original worker --pool threads --concurrency 4

A message carries the pictures in base64. A thread of the worker hands them to a pool of processes for the documented
algorithm, puts the results into the store one after another, writes their rows in one commit, and publishes the
begin and the end. Celery must be installed (`make .venv/bench.stamp`).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import redis
from celery import Celery
from celery.signals import worker_init
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, func, select

from benchmarks.opponents import documented
from dream.settings import load

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from dream.messages.arguments import ImageFile

__all__ = ["app", "create_table", "finished", "upload_images"]

_QUEUE = "original_image_processing"
_ROWS = Table(
    "original_images",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("dream_id", Integer, nullable=False),
    Column("url", String(500), nullable=False),
    Column("position", Integer, nullable=False),
)

app = Celery("original")
app.conf.task_default_queue = _QUEUE
if "DREAM_BROKER_URL" in os.environ:
    app.conf.broker_url = os.environ["DREAM_BROKER_URL"]


def upload_images(dream_id: int, files: Sequence[ImageFile], positions: Sequence[int]) -> None:
    """Send the pictures to the queue."""
    texts = [base64.b64encode(file["data"]).decode() for file in files]
    _process_and_upload_images.delay(dream_id, texts, list(positions))


def create_table() -> None:
    """Create the table of the results."""
    _ROWS.metadata.create_all(_engine())


def finished() -> int:
    """The number of pictures that are in the database."""
    with _engine().connect() as connection:
        return connection.scalar(select(func.count()).select_from(_ROWS)) or 0


@worker_init.connect  # type: ignore[untyped-decorator]
def _prepare(**_: Any) -> None:
    """Make them before there are threads."""
    for make in (_pool, _store, _engine, _redis):
        make()


@app.task(name="original.process_and_upload_images")  # type: ignore[untyped-decorator]
def _process_and_upload_images(dream_id: int, texts: list[str], positions: list[int]) -> None:
    _publish(dream_id, status="processing")
    results = list(_pool().map(documented, [base64.b64decode(text) for text in texts]))
    rows = []
    for data, position in zip(results, positions, strict=True):
        key = f"original/{uuid4().hex}.jpg"
        _store().put_object(Bucket=load().s3_bucket, Key=key, Body=data, ContentType="image/jpeg")
        rows.append({"dream_id": dream_id, "url": key, "position": position})
    with _engine().begin() as connection:
        connection.execute(_ROWS.insert(), rows)
    _publish(dream_id, status="completed", images=rows)


def _publish(dream_id: int, **message: Any) -> None:
    _redis().publish(f"original_{dream_id}", json.dumps({"type": "image_update", **message}))


@cache
def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("forkserver"))


@cache
def _store() -> S3Client:
    settings = load()
    assert settings.s3_secret_key is not None
    return boto3.client(
        "s3",
        endpoint_url=str(settings.s3_endpoint_url),
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
    )


@cache
def _engine() -> Engine:
    return create_engine(load().database_url, connect_args={"timeout": 30})


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(load().broker_url)
