"""An old system that the bridge reads from: the real Celery's producers, and their broker."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import pika
import redis
from sqlalchemy import func, select

from dream.bridge import Bridge, Moved, open_source
from dream.bridge.handover import Handover
from dream.bridge.parked import ParkingPlace
from dream.celery.accepting import OwnTasks
from dream.compat import Celery
from dream.db import DreamTask
from dream.producer import Producer, default
from dream.runs.sending import own_broker
from dream.settings import Settings, load
from dream.work.redis_client import connect
from tests import real_celery
from tests.this_process import forget

__all__ = ["CLEAN_UP", "UPLOAD", "Old", "celery", "old_system", "rows", "waiting"]

UPLOAD = "dream.celery.tasks.image_tasks.celery_upload_images"
CLEAN_UP = "dream.celery.tasks.token_tasks.cleanup_expired_tokens"


def celery(url: str, program: str, backend: str | None = None) -> str:
    """The output of a process with the real Celery, in its default configuration."""
    head = f"from celery import Celery\napp = Celery(broker={url!r}, backend={backend!r})\nsend = app.send_task\n"
    return real_celery.run(head + program)


def shop(*names: str) -> Celery:
    """An app whose workers know these tasks."""
    app = Celery("shop")
    for name in names:
        app.task(name=name)(lambda *_arguments: None)
    return app


class Old:
    """The old system: Celery's broker, and what the bridge makes of its messages."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.url = url
        self.queue = f"old-{uuid4().hex[:8]}"

    def send(self, program: str) -> None:
        """`send(name, args, …)` puts a task on the old queue.

        It waits until RabbitMQ has confirmed each: a quorum queue may show a message only after its sender has ended.
        """
        head = f"app.conf.task_default_queue = {self.queue!r}\n"
        if self.url.startswith("amqp"):
            head += "app.conf.broker_transport_options = {'confirm_publish': True}\n"
        celery(self.url, head + program)

    def put(self, messages: list[dict[str, Any]]) -> None:
        """The same messages as Celery would put them there."""
        if self.url.startswith("redis"):
            with connect(self.url) as client:
                for message in messages:
                    client.lpush(self.queue, json.dumps(message))
            return
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            channel.queue_declare(self.queue, durable=True)
            for message in messages:
                properties = pika.BasicProperties(headers=message["headers"], content_type=message["content-type"])
                channel.basic_publish("", self.queue, base64.b64decode(message["body"]), properties)

    @contextmanager
    def handover(self, *known: str, producer: Producer | None = None) -> Iterator[tuple[Handover, ParkingPlace]]:
        place, broker = ParkingPlace(self.settings), own_broker(self.settings)
        own = OwnTasks(producer or default())
        handover = Handover(self.settings, shop(*(known or ("shop.add",))), own, broker, place)
        yield handover, place
        handover.close()
        place.close()
        broker.close()

    def move(self, **options: Any) -> Moved:
        """All that waits."""
        source = open_source(self.settings, self.url, [self.queue], **options)
        with self.handover() as (handover, _):
            moved = Bridge(source, handover).run(threading.Event().wait, drain=True)
        source.close()
        return moved

    def move_and_die(self, fault: str) -> int | None:
        """In a process of its own, with that fault; returns its exit code."""

        def run() -> None:
            os.environ["DREAM_FAULT"] = fault
            forget()
            load()  # which arms the fault
            self.move()

        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        process.join(60)
        return process.exitcode

    def parked(self) -> dict[str, str]:
        """The reasons, by the task's name."""
        with self.handover() as (_, place):
            return {each.task: each.reason for each in place.all()}

    def reasons(self) -> dict[str, str]:
        """The reasons, by the task's id."""
        with closing(ParkingPlace(self.settings)) as place:
            return {each.taken.raw["headers"]["id"]: each.reason for each in place.all()}  # type: ignore[index,call-overload]


@contextmanager
def old_system(settings: Settings, url: str) -> Iterator[Old]:
    """One with a queue of its own, gone at the end."""
    old = Old(settings, url)
    yield old
    if url.startswith("amqp"):
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            connection.channel().queue_delete(old.queue)
            connection.channel().exchange_delete(old.queue)
        return
    with connect(url) as client:
        for pattern in (f"*{old.queue}*", f"{settings.redis_prefix}:*", "unacked*"):
            for key in client.scan_iter(pattern):
                client.delete(key)


def waiting(settings: Settings, queue: str = "default") -> list[dict[str, Any]]:
    """The messages on a queue of ours, in order."""
    with redis.Redis.from_url(settings.broker_url) as client:
        name = f"{settings.redis_prefix}:{queue}"
        ids: Any = client.lrange(name, 0, -1)
        return [json.loads(client.hget(f"{name}.msgs", each) or "{}") for each in ids]


def rows(of: type[Any] = DreamTask) -> int:
    """The number of rows in the database of this process."""
    with default().database.read() as session:
        return session.scalar(select(func.count()).select_from(of)) or 0
