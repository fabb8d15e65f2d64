"""The time of one user's single upload while thousands of pictures of another user wait, against an idle system.

    python -m benchmarks.fairness --photos FOLDER [--rounds 5] [--waiting 5000] [--shapes 1 100]

Real servers (Valkey, SeaweedFS, SQLite), a real worker and this process as the web layer share the machine's cores.
A shape is the number of pictures in each waiting task. The rounds alternate: single uploads on the idle system, then
the same with the waiting tasks on the queue. Each time is from the call of `upload_images` to the committed end of its
task. To make the system idle again, the benchmark takes the waiting messages off, and waits for the last runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from benchmarks.pictures import photo_paths
from benchmarks.pipeline import running_worker, wait_until
from dream.db import Database, DreamTask, migrate
from dream.messages.arguments import ImageFile
from dream.messages.registry import IMAGES_QUEUE, QUEUES
from dream.messages.states import TaskState
from dream.producer import NOT_SENT, Connections, Producer
from dream.runs.sending import message_of
from dream.settings import Settings, load
from dream.stack import servers_only
from dream.storage import Storage
from dream.work.broker import make_broker
from dream.work.broker.redis import RedisBroker

__all__ = ["main"]

_BUSY, _OTHER = 1, 2  # users
_SINGLES = 5  # uploads of the other user in each half of a round
_LOOK_EVERY_S = 0.002
_AT_ONCE = 500


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fairness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="JPEG photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waiting", type=int, default=5000, metavar="N", help="pictures of the busy user that wait")
    parser.add_argument("--shapes", type=int, nargs="+", default=[1, 100], metavar="N", help="pictures in each task")
    options = parser.parse_args()
    photos = photo_paths(options.photos)
    if not photos:
        parser.error(f"no JPEG is in {options.photos}")
    files = [ImageFile(name=photo.name, data=photo.read_bytes()) for photo in photos]
    with tempfile.TemporaryDirectory(prefix="dream-bench-") as name, servers_only(Path(name, "servers")) as variables:
        os.environ.update(variables, DREAM_DATABASE_URL=f"sqlite:///{name}/dream.db", DREAM_WORK_DIR=name)
        settings = load()
        migrate.upgrade(settings.database_url)
        Storage(settings).ensure_bucket(settings.s3_bucket)
        with running_worker(Path(name), sorted(os.sched_getaffinity(0))):
            for shape in options.shapes:
                _Site(settings, files, shape).measure(options.rounds, options.waiting)


class _Site:
    """Two users of one system.

    Parameters:
      files: the photos that they upload, in turns.
      shape: pictures in each task of the busy user.
    """

    def __init__(self, settings: Settings, files: list[ImageFile], shape: int) -> None:
        self._settings = settings
        self._files = files
        self._shape = shape
        self._of_shape = f"waiting-{shape}-"
        self._database = Database(settings)
        self._broker = make_broker(settings, QUEUES)
        if not isinstance(self._broker, RedisBroker):
            raise SystemExit("this needs Redis or Valkey: unset DREAM_BROKER_URL")
        self._connections = Connections(settings, database=self._database, broker=self._broker)
        self._producer = Producer(settings, self._connections)
        # Through the driver alone: the waiting process takes no processor time from the working ones.
        self._watching = self._database.engine.raw_connection()

    def measure(self, rounds: int, waiting: int) -> None:
        """Print the medians and their ratio."""
        # More than is needed: each round uses some up, and that many must wait in the last round, too.
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(self._prepare, range(waiting * 3 // 2 // self._shape)))
        self._upload_singles()
        idle_s, loaded_s, least = [], [], waiting
        for _ in range(rounds):
            idle_s += self._upload_singles()
            self._send_waiting()
            wait_until(lambda: self._count("running") > 0 or not self._count("queued", self._of_shape))
            loaded_s += self._upload_singles()
            least = min(least, self._shape * self._count("queued", self._of_shape))
            if not least:
                raise SystemExit("no task waits any more: use a larger --waiting")
            self._broker.discard(self._settings.queue_prefix + IMAGES_QUEUE)
            wait_until(lambda: self._count("running") == 0)
        idle_ms, loaded_ms = 1e3 * statistics.median(idle_s), 1e3 * statistics.median(loaded_s)
        print(
            f"{self._shape:3} in a task, at least {least} pictures waiting: idle {idle_ms:.0f} ms, "
            f"loaded {loaded_ms:.0f} ms (worst {1e3 * max(loaded_s):.0f} ms), ratio {loaded_ms / idle_ms:.2f}",
            flush=True,
        )
        self._watching.close()
        self._connections.close()

    def _prepare(self, number: int) -> None:
        """Upload a task of the busy user whose message is not sent yet."""
        chosen = [self._files[(number + index) % len(self._files)] for index in range(self._shape)]
        task_id = f"{self._of_shape}{number}"
        self._producer.upload_images(number + 1, chosen, task_id=task_id, user_id=_BUSY, delivery=NOT_SENT)

    def _upload_singles(self) -> list[float]:
        """Upload single pictures of the other user, one after the end of another; return the seconds of each."""
        taken_s = []
        for number in range(_SINGLES):
            started_s = time.monotonic()
            chosen = [self._files[number % len(self._files)]]
            task_id = self._producer.upload_images(1_000_000 + number, chosen, user_id=_OTHER)
            while not self._has_succeeded(task_id):
                time.sleep(_LOOK_EVERY_S)
            taken_s.append(time.monotonic() - started_s)
        return taken_s

    def _has_succeeded(self, task_id: str) -> bool:
        found = self._watching.cursor().execute("SELECT state FROM dream_tasks WHERE id = ?", (task_id,)).fetchone()
        return bool(found[0] == "succeeded")

    def _count(self, state: str, begin: str = "") -> int:
        query = "SELECT count(*) FROM dream_tasks WHERE state = ? AND id LIKE ?"
        found = self._watching.cursor().execute(query, (state, f"{begin}%"))
        return int(found.fetchone()[0])

    def _send_waiting(self) -> None:
        """Put the messages of the waiting tasks on the queue, many at a time: a worker begins with the first."""
        with self._database.read() as session:
            waiting = list(
                session.scalars(
                    select(DreamTask).where(
                        DreamTask.state == TaskState.QUEUED, DreamTask.id.startswith(self._of_shape)
                    )
                )
            )
        messages = [message_of(self._settings, each.id, each.name, each.args, user_id=_BUSY) for each in waiting]
        deliveries = [(each.message_id, each, None) for each in messages]
        for start in range(0, len(deliveries), _AT_ONCE):
            self._broker.hand_over(deliveries[start : start + _AT_ONCE], "", remembered_s=1)


if __name__ == "__main__":
    main()
