"""A gateway in a process of its own, and what tests say to it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import redis
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dream.db import Base, Database, DreamImage, DreamTask
from dream.db.dreams import give_to
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import ImageState
from dream.notifications import Publisher
from dream.notifications.publish import events_key
from dream.settings import Settings
from dream.storage import Storage
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.preloaded import Preloaded

__all__ = [
    "DREAM",
    "KEY",
    "OTHER_DREAM",
    "OWNER",
    "SECRET",
    "STRANGER",
    "Gateway",
    "auth",
    "check_refusal",
    "closing_code",
    "emptied",
    "publish_a_gap",
    "receive",
    "running",
    "token",
    "without_pictures",
]

SECRET = "a secret of the tests, 32 bytes or more"
OWNER, STRANGER = 11, 22
DREAM, OTHER_DREAM = 7, 8
KEY = "dreams/20260101/" + "0" * 32 + ".jpg"
_CODES = set(
    re.findall(r"^\| `([a-z_]+)` \|", (Path(__file__).parents[1] / "docs/errors.md").read_text("utf-8"), re.MULTILINE)
)


def token(user_id: Any = OWNER, *, lasts_s: float = 3600, **claims: Any) -> str:
    return jwt.encode({"user_id": user_id, "exp": time.time() + lasts_s, **claims}, SECRET, "HS256")


def check_refusal(answer: httpx.Response) -> None:
    """Every error says a sentence to people and a code that `docs/errors.md` explains to programs."""
    if answer.status_code >= 400 and answer.request.method != "HEAD" and answer.request.url.host == "127.0.0.1":
        answer.read()
        refusal = answer.json()
        assert isinstance(refusal["error"], str), refusal
        assert refusal["code"] in _CODES, refusal


class Gateway:
    """A running gateway and what tests need around it."""

    def __init__(self, environment: dict[str, str], settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.publisher = Publisher(settings)
        self.log = folder / "gateway.log"
        self._ready = folder / "ready"
        self._ready.unlink(missing_ok=True)
        own = {"DREAM_JWT_SECRET": SECRET, "DREAM_READY_FILE": str(self._ready)}
        variables = {**os.environ, "DREAM_PORT": "0", **environment, **own}
        self.process = Preloaded(["-m", "dream", "gateway"], variables, self.log)

    def __enter__(self) -> Gateway:
        wait_for(lambda: self._ready.exists() or self.process.poll() is not None, what="the gateway")
        assert self.process.poll() is None, self.log.read_text()
        self.port = int(self._ready.read_text())
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=20,
            # The gateway ends a connection that is idle for 5 s, perhaps at the moment of the next request.
            limits=httpx.Limits(keepalive_expiry=2),
            event_hooks={"response": [check_refusal]},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.publisher.close()
            self.database.dispose()

    @contextmanager
    def socket(
        self, query: str = "", *, dream_id: Any = DREAM, slash: str = "/", **how: Any
    ) -> Iterator[ClientConnection]:
        address = f"ws://127.0.0.1:{self.port}/ws/dream-images/{dream_id}{slash}{query}"
        with connect(address, open_timeout=20, **how) as websocket:
            yield websocket

    @contextmanager
    def watching(self, **how: Any) -> Iterator[ClientConnection]:
        """A socket that is connected and greeted."""
        with self.socket(f"?token={token()}", **how) as websocket:
            assert receive(websocket)["type"] == "connection_established"
            yield websocket

    def publish(self, progress: int = 1, *, dream_id: int = DREAM, message: str | None = None) -> None:
        event = ImageUpdate(
            dream_id=dream_id, status=UpdateStatus.PROCESSING, progress=progress, message=message, task_id="t"
        )
        assert self.publisher.publish(event)

    def add_image(self, state: ImageState = ImageState.COMPLETED, *, number: int = 0, dream_id: int = DREAM) -> int:
        key = KEY.replace("0" * 32, f"{number:032x}")
        with self.database.begin() as session:
            if session.get(DreamTask, f"task{number}") is None:
                session.add(DreamTask(id=f"task{number}", name=PROCESS_IMAGES, args=[]))
                session.flush()
            image = DreamImage(
                dream_id=dream_id, task_id=f"task{number}", index=0, position=number, filename=f"{number}.jpg"
            )
            image.state, image.storage_key, image.bucket = state, key, self.settings.s3_bucket
            image.url = f"{self.settings.media_url}/{key}" if state is ImageState.COMPLETED else None
            image.error = "not a picture" if state is ImageState.FAILED else None
            session.add(image)
            session.flush()
            return image.id


def receive(websocket: ClientConnection, *, skip: tuple[str, ...] = ("ping",)) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(websocket.recv(timeout=20))
        if message["type"] not in skip:
            return message


def closing_code(websocket: ClientConnection) -> int | None:
    """Read until the server closes, and say with which code."""
    with suppress(ConnectionClosed):
        while True:
            websocket.recv(timeout=20)
    return websocket.close_code


def auth(value: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {value or token()}"}


def publish_a_gap(gateway: Gateway) -> None:
    """Publish an event that cannot be read, and one that can: watchers of DREAM get the state from the database."""
    key = events_key(gateway.settings.redis_prefix, DREAM)
    with redis.Redis.from_url(gateway.settings.events_url) as client:
        client.xadd(key, {"event": "nonsense"})
    gateway.publish(40)


@contextmanager
def without_pictures(gateway: Gateway) -> Iterator[None]:
    """Let the database answer about a dream's pictures with an error."""
    table = DreamImage.__tablename__
    with gateway.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO away"))
    try:
        yield
    finally:
        with gateway.database.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE away RENAME TO {table}"))


@contextmanager
def running(folder: Path, servers: dict[str, str], **changes: str) -> Iterator[Gateway]:
    # The variables of the servers name one port for all.
    environment = {**environment_in(folder, servers), "DREAM_PORT": "0", **changes}
    with Gateway(environment, prepare(settings_from(environment)), folder) as gateway:
        yield gateway


def emptied(gateway: Gateway) -> Gateway:
    """A gateway with nothing left of other tests, and with a dream of OWNER's and one of STRANGER's."""
    settings, storage = gateway.settings, Storage(gateway.settings)
    with gateway.database.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
        give_to(session, DREAM, OWNER, "olga")
        give_to(session, OTHER_DREAM, STRANGER, "sam")
    storage.delete(settings.s3_bucket, [key for key, _ in storage.list_keys(settings.s3_bucket, "")])
    with redis.Redis.from_url(settings.events_url) as client:
        for key in client.scan_iter(f"{settings.redis_prefix}:*"):
            client.delete(key)
    return gateway
