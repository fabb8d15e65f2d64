"""The web host's process: it uploads, deletes and watches without a pause, and checks the promise at the end.

    python -m tests.acceptance.hosts.traffic

It answers each line on standard input with a line of JSON:

    report    how many tasks were accepted and have ended, and whether the page has a socket
    finish    the same once every task has ended, with all that broke the promise; then the process ends
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import func, select
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from dream.cli.tokens import sign
from dream.db import DreamImage, DreamTask, dreams, migrate
from dream.errors import DreamError
from dream.messages.states import ImageState, TaskState
from dream.producer import Producer
from dream.settings import load
from dream.storage import Storage
from tests import promise
from tests.pictures import noise

__all__ = ["main"]

#: The dream that the page watches is the first.
DREAMS = 12
_USER = 1
#: A page that hears nothing for so long connects again.
_SILENCE_S = 4.0
_STUCK_S = 120.0


class Page:
    """A page that shows a dream: it connects again whenever its socket breaks, and asks for what it missed."""

    def __init__(self, gateway_url: str, dream_id: int, token: str) -> None:
        self._address = f"{gateway_url.replace('http', 'ws')}/ws/dream-images/{dream_id}/"
        self._token = token
        self.is_open = False
        #: The tasks whose end the page was told.
        self.ended: set[str] = set()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        seq = ""
        while True:
            query = {"token": self._token} | ({"since": seq} if seq else {})
            try:
                with connect(f"{self._address}?{urlencode(query)}", open_timeout=_SILENCE_S, close_timeout=1) as socket:
                    self.is_open = True
                    while True:
                        message = json.loads(socket.recv(timeout=_SILENCE_S))
                        seq = message.get("seq") or seq
                        if message.get("status") in ("completed", "failed", "delete_completed", "delete_failed"):
                            self.ended.add(message.get("task_id", ""))
            except (OSError, WebSocketException, TimeoutError):
                self.is_open = False
                time.sleep(0.2)


class Traffic:
    """Uploads and deletions of a web process, in two threads."""

    def __init__(self) -> None:
        self._settings = load()
        migrate.upgrade(self._settings.database_url)
        Storage(self._settings).ensure_bucket(self._settings.s3_bucket)
        self._producer = Producer(self._settings)
        self._picture = noise()
        self._stopping = threading.Event()
        self.accepted: list[str] = []
        self.refused: list[str] = []
        with self._producer.database.begin() as session:
            dreams.give_to(session, 1, _USER, "ann")
        self.page = Page(self._settings.gateway_url, 1, sign(self._settings, _USER, 3600))
        self._threads = [
            threading.Thread(target=self._repeat, args=each) for each in ((self._upload,), (self._delete,))
        ]
        for thread in self._threads:
            thread.start()

    def report(self) -> dict[str, Any]:
        with self._producer.database.read() as session:
            ended = session.scalar(select(func.count()).where(DreamTask.announced_at.is_not(None)))
            failed = session.scalar(select(func.count()).where(DreamTask.state == TaskState.FAILED))
            deaths = session.scalar(select(func.coalesce(func.sum(DreamTask.deaths), 0)))
        return {
            "accepted": len(self.accepted),
            "refused": self.refused,
            "ended": ended,
            "failed": failed,
            "deaths": deaths,
            "is_watched": self.page.is_open,
        }

    def finish(self) -> dict[str, Any]:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        give_up = time.monotonic() + _STUCK_S
        while self._left() and time.monotonic() < give_up:
            time.sleep(0.2)
        with self._producer.database.read() as session:
            tasks = session.scalars(select(DreamTask)).all()
        of_page = {task.id for task in tasks if task.args and task.args[0] == 1}
        while of_page - self.page.ended and time.monotonic() < give_up:
            time.sleep(0.2)
        promise.sweep_the_night(os.environ)
        broken = promise.check(os.environ, self.accepted).broken
        broken += [f"the page was never told the end of task {each}" for each in sorted(of_page - self.page.ended)]
        return {**self.report(), "broken": broken}

    def _left(self) -> int:
        with self._producer.database.read() as session:
            return session.scalar(select(func.count()).where(DreamTask.announced_at.is_(None))) or 0

    def _repeat(self, call: Any) -> None:
        while not self._stopping.wait(random.uniform(0.2, 0.6)):
            try:
                call()
            except DreamError as error:
                self.refused.append(str(error))

    def _upload(self) -> None:
        files: Any = [{"name": "a.jpg", "data": self._picture}] * 2
        self.accepted.append(self._producer.upload_images(random.randint(1, DREAMS), files, [0, 0]))

    def _delete(self) -> None:
        """Delete some picture that is stored, waits or is in work; half as often as one is uploaded."""
        if random.random() < 0.5:
            return
        with self._producer.database.read() as session:
            there = select(DreamImage).where(DreamImage.state != ImageState.DELETED).order_by(func.random()).limit(1)
            image = session.scalar(there)
        if image is not None:
            named: Any = {"id": image.id, "url": image.url} if image.url else {"id": image.id}
            self.accepted.append(self._producer.delete_images(image.dream_id, [named], "ann"))


def main() -> None:
    """Answer until the traffic is finished."""
    traffic = Traffic()
    for line in sys.stdin:
        is_last = line.strip() == "finish"
        sys.stdout.write(json.dumps(traffic.finish() if is_last else traffic.report()) + "\n")
        sys.stdout.flush()
        if is_last:
            os._exit(0)


if __name__ == "__main__":
    main()
