"""The master of Redis dies, and another is replaced by order, during uploads: each ends, and its page learns it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from dream.db.dreams import give_to
from dream.settings import Settings
from dream.work.questions import Question, ask
from tests import sentinels
from tests.acceptance.conftest import System
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.gateway import SECRET, token
from tests.processes import Parts

DREAM, USER = 7, 11


@pytest.fixture
def redis_service(tmp_path: Path) -> Iterator[sentinels.Sentinels]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with sentinels.running(folder) as servers:
        yield servers


@pytest.fixture
def environment(servers: dict[str, str], tmp_path: Path, redis_service: sentinels.Sentinels) -> dict[str, str]:
    return {
        **environment_in(tmp_path, servers),
        "DREAM_BROKER_URL": redis_service.url,
        "DREAM_REDIS_URL": "",
        "DREAM_JWT_SECRET": SECRET,
        "DREAM_RESEND_AFTER_S": "5",
    }


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    own = {name: value for name, value in environment.items() if value}
    return prepare(settings_from(own))


class Page:
    """A page's socket, read by a thread: the pictures that it knows to be completed."""

    def __init__(self, socket: ClientConnection) -> None:
        self.completed: set[int] = set()
        self._socket = socket
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for text in self._socket:
            message = json.loads(text)
            if message.get("status") == "completed":
                self.completed |= {image["id"] for image in message["images"]}

    def end(self) -> int | None:
        """Close the socket; returns the code with which the gateway had closed it, if it had."""
        code = self._socket.close_code
        self._socket.close()
        self._thread.join(10)
        return code


@pytest.mark.slow
def test_uploads_and_sockets_survive_a_killed_and_an_ordered_change_of_the_master(
    parts: Parts, system: System, redis_service: sentinels.Sentinels, jpeg: bytes
) -> None:
    with system.database.begin() as session:
        give_to(session, DREAM, USER, "olga")
    for command in ("worker", "scheduler"):
        parts.start(command)
    port = _port_of(parts)
    tasks: list[str] = []
    stop = threading.Event()

    def upload() -> None:
        while not stop.wait(0.3):
            file = {"name": f"{len(tasks)}.jpg", "data": jpeg}
            tasks.append(system.producer.upload_images(DREAM, [file], [len(tasks)]))

    uploading = threading.Thread(target=upload)
    with connect(f"ws://127.0.0.1:{port}/ws/dream-images/{DREAM}/?token={token(USER, lasts_s=600)}") as socket:
        page = Page(socket)
        uploading.start()
        try:
            for change in (redis_service.kill_master, redis_service.switch):
                before = len(tasks)
                dead = change()
                if dead is not None:
                    redis_service.start_redis(dead)
                wait_for(lambda: len(tasks) > before + 8, 60, "further uploads")  # noqa: B023 (asked at once)
        finally:
            stop.set()
            uploading.join()
        images = {image.id for task_id in tasks for image in _completed(system, task_id)}
        assert len(images) == len(tasks)
        wait_for(lambda: page.completed >= images, 30, lambda: f"{images - page.completed} on the page")
        assert page.end() is None
    answers = partial(ask, system.settings, Question(command="ping"), timeout_s=1)
    wait_for(lambda: answers().by_worker, 30, "the worker's answer")


def _port_of(parts: Parts) -> int:
    process = parts.start("gateway", DREAM_PORT="0")
    lines = parts.log_of(process).splitlines()
    return next(int(line["port"]) for line in map(json.loads, lines) if line["event"] == "gateway_ready")


def _completed(system: System, task_id: str) -> list[object]:
    assert system.await_end(task_id, 90).state == "succeeded"
    return list(system.images(task_id))
