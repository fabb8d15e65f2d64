"""The soak: uploads and deletions without a pause, a random part killed every few seconds, then the promise is checked.

    python -m tests.soak MINUTES [SEED]

    this process ── uploads, deletes, kills, counts
         └─ dream up ── Valkey, SeaweedFS, worker (and its pool), scheduler, gateway: each may be killed, and all of it

Prints the counts. Ends with 1 where the promise is broken; then the stack's folder stays, with all its logs.
"""

from __future__ import annotations

import io
import logging
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import func, select

from dream.db import DreamImage, DreamTask
from dream.errors import DreamError
from dream.producer import Producer
from dream.settings import Settings
from dream.stack.up import running_variables
from tests import promise
from tests.conftest import settings_from

__all__ = ["Soak", "command_of", "descendants", "main"]

#: Clocks that are short beside the time between two kills; their ratios are those of the defaults.
QUICK = {
    "DREAM_LEASE_S": "1.5",
    "DREAM_LEASE_RENEW_S": "0.5",
    "DREAM_HEARTBEAT_S": "2",
    "DREAM_RESEND_AFTER_S": "4",
    "DREAM_RETRY_FIRST_S": "0.5",
    "DREAM_MAX_RETRIES": "8",
    "DREAM_S3_CONNECT_TIMEOUT_S": "1",
    "DREAM_S3_READ_TIMEOUT_S": "3",
    # Callers are refused while so many pictures wait, or a slow machine would only queue.
    "DREAM_MAX_PENDING": "200",
    "DREAM_LOG_LEVEL": "warning",
}
#: What is killed, by a word of its command, and how often beside the others.
PARTS = {"valkey-server": 1, "weed": 1, "scheduler": 1, "gateway": 1, "worker": 3, "multiprocessing": 2, "dream up": 1}
PAUSE_S = (2.0, 6.0)
DREAMS = 60
_START_S = 90.0
#: Without any progress for so long, what is left counts as lost.
_STUCK_S = 120.0


class Soak:
    """One soak.

    Parameters:
      folder: of the stack.
      seed: of what is uploaded, deleted and killed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._pictures = _pictures()
        self._stopping = threading.Event()
        self.accepted: list[str] = []
        self.counts: Counter[str] = Counter()
        self.variables: dict[str, str] = {}
        self.stack = self._start()

    def run(self, minutes: float) -> promise.Findings:
        """Upload, delete and kill for so long; wait until everything has ended; check."""
        callers = (self._upload, self._upload, self._delete)
        busy = [threading.Thread(target=self._repeat, args=(caller,)) for caller in callers]
        for thread in busy:
            thread.start()
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            self._stopping.wait(self._random.uniform(*PAUSE_S))
            self._kill_something()
        self._stopping.set()
        for thread in busy:
            thread.join()
        self._await_ends()
        promise.sweep_the_night(self.variables)
        findings = promise.check(self.variables, self.accepted)
        findings.counts.update(self.counts)
        return findings

    # --- the stack

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dream", "up", "--port", "0", "--data", str(self._folder)]
        with self._folder.with_suffix(".log").open("ab") as log:
            stack = subprocess.Popen(
                command, env=os.environ | QUICK, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        timer = threading.Timer(_START_S, stack.kill)
        timer.start()
        assert stack.stdout is not None
        line = stack.stdout.readline()
        timer.cancel()
        if not line.startswith("ready "):
            raise SystemExit(f"soak: the stack did not start; see {self._folder.with_suffix('.log')}")
        self.variables = {**QUICK, **running_variables(self._folder)}
        return stack

    def stop(self) -> None:
        self.stack.terminate()
        self.stack.wait(30)

    def _kill_something(self) -> None:
        kind = self._random.choices(list(PARTS), list(PARTS.values()))[0]
        if kind == "dream up":
            self.stack.kill()
            self.stack.wait()
            self.stack = self._start()
        else:
            found = [pid for pid in descendants(self.stack.pid) if kind in command_of(pid)]
            if not found:
                return  # it is just being started again
            os.kill(self._random.choice(found), signal.SIGKILL)
        self.counts[f"killed {kind}"] += 1

    # --- what callers do

    def _repeat(self, what: Any) -> None:
        while not self._stopping.wait(self._random.uniform(0.2, 1.2)):
            # As a web process would be: it outlives the servers, which may come back on other ports.
            producer = Producer(settings_from(self.variables))
            try:
                what(producer)
            except DreamError as error:
                self.counts[f"refused: {type(error).__name__}"] += 1
            finally:
                producer.database.dispose()

    def _upload(self, producer: Producer) -> None:
        files = self._random.choices(self._pictures, k=self._random.randint(1, 4))
        named: list[Any] = [{"name": f"{index}.jpg", "data": data} for index, data in enumerate(files)]
        task_id = producer.upload_images(self._random.randint(1, DREAMS), named, [0] * len(named))
        self.accepted.append(task_id)
        self.counts["uploads"] += 1

    def _delete(self, producer: Producer) -> None:
        """Some picture in whatever state: waiting, in work, stored, deleted already; now and then another's."""
        with producer.database.read() as session:
            image = session.scalar(select(DreamImage).order_by(func.random()).limit(1))
        if image is None:
            return
        is_strangers = self._random.random() < 0.1
        dream_id = image.dream_id + DREAMS if is_strangers else image.dream_id
        named: Any = {"id": image.id, "url": image.url} if image.url else {"id": image.id}
        self.accepted.append(producer.delete_images(dream_id, [named], "ann"))
        self.counts["deletions"] += 1

    # --- the end

    def _await_ends(self) -> None:
        settings = settings_from(self.variables)
        least, since = math.inf, time.monotonic()
        while (left := _left(settings)) and time.monotonic() - since < _STUCK_S:
            if left < least:
                least, since = left, time.monotonic()
            threading.Event().wait(0.5)


def _left(settings: Settings) -> int:
    """The number of tasks that have not ended, or whose end has not been told."""
    producer = Producer(settings)
    query = select(func.count()).where(DreamTask.announced_at.is_(None))
    try:
        with producer.database.read() as session:
            return session.scalar(query) or 0
    finally:
        producer.database.dispose()


def _pictures() -> list[bytes]:
    """Small ones, larger ones, and one that is none."""
    made = []
    kinds = ((160, 120, "JPEG"), (800, 600, "PNG"), (1600, 1200, "JPEG"), (3000, 2000, "JPEG"))
    for width_px, height_px, form in kinds:
        file = io.BytesIO()
        Image.effect_noise((width_px, height_px), 60).convert("RGB").save(file, form)
        made.append(file.getvalue())
    return [*made, b"no picture"]


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        children = below.get(left.pop(), [])
        found += children
        left += children
    return found


def command_of(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def main(minutes: str = "10", seed: str | None = None) -> int:
    """Run a soak; returns the exit code."""
    logging.getLogger("dream").setLevel(logging.ERROR)  # an outage is no news here
    chosen = int(seed) if seed else random.randrange(1_000_000)
    sys.stdout.write(f"a soak of {minutes} minutes, seed {chosen}\n")
    sys.stdout.flush()
    folder = Path(tempfile.mkdtemp(prefix="dream-soak-")) / "data"
    soak = Soak(folder, chosen)
    try:
        findings = soak.run(float(minutes))
    finally:
        soak.stop()
    verdict = "the promise is broken" if findings.broken else "the promise holds"
    sys.stdout.write(f"{findings}\n{verdict}\n")
    if findings.broken:
        sys.stdout.write(f"logs: {folder}\n")
        return 1
    shutil.rmtree(folder.parent)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
