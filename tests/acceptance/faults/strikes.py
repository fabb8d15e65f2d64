"""Faults that strike while a process stands at its step, each under its name in `cells.FAULTS`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import redis
from dramatiq.brokers.redis import RedisBroker as StockRedisBroker
from sqlalchemy import make_url

from dream.runs.sending import message_of, own_broker
from tests.acceptance.faults.scene import Scene, hold, is_locked, lock_sqlite
from tests.acceptance.faults.stack_scene import StackScene
from tests.conftest import wait_for
from tests.processes import processes_with
from tests.queues import purge_queues
from tests.store_proxy import StoreFault

__all__ = ["STRIKES"]

_OUTAGE_S = 1.5
_METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")


def killed(scene: Scene) -> None:
    """The fault point has done it. A worker starts itself again; a scheduler is started by who supervises it."""
    if scene.cell.process == "scheduler":
        scheduler_killed(scene)


def paused(scene: Scene) -> None:
    """Stands still until others have finished the task, or, where nobody else can, past its lease.

    One of its other threads may hold SQLite's write lock at that moment: then nobody can.
    """
    if scene.cell.process in ("worker", "child") and not is_locked(_sqlite_of(scene)):
        others_end = lambda: (task := scene.task()) is not None and task.state.is_terminal  # noqa: E731
        wait_for(others_end, 30, "the end of the task by others")
    hold(scene.settings.lease_s)


def all_killed(scene: Scene) -> None:
    for part in [*scene.workers, scene.scheduler]:
        if part is not None:
            scene.parts.kill(part)
    if scene.web is not None:
        scene.web.kill()
    scene.valkey.kill()
    scene.valkey.start()
    scene.start_parts()


def broker_restarted(scene: Scene) -> None:
    scene.valkey.kill()
    scene.go_on()
    hold(_OUTAGE_S)
    scene.valkey.start()


def broker_emptied(scene: Scene) -> None:
    client = redis.Redis.from_url(scene.valkey.url)
    client.flushall()
    client.close()


def message_doubled(scene: Scene) -> None:
    task = wait_for(scene.task, what="the task's row")
    assert task is not None
    broker = own_broker(scene.settings)
    # Past our own enqueue, which would not put it there twice.
    copy = message_of(scene.settings, task.id, task.name, task.args, attempt=task.attempts, queue=task.queue)
    StockRedisBroker.enqueue(broker, copy)  # type: ignore[arg-type]
    broker.close()


def scheduler_killed(scene: Scene) -> None:
    assert scene.scheduler is not None
    scene.parts.kill(scene.scheduler)
    scene.scheduler = scene.parts.start("scheduler", ready=False)


def child_killed(scene: Scene) -> None:
    for pid in wait_for(lambda: _children(scene), what="a process that works on pictures"):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _children(scene: Scene) -> list[int]:
    found = []
    for pid in processes_with(scene.environment["DREAM_REDIS_PREFIX"]):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def _store(scene: Scene, **how: object) -> None:
    faults = [StoreFault(method, **how) for method in _METHODS]  # type: ignore[arg-type]
    with scene.store.failing(*faults):
        scene.go_on()
        hold(_OUTAGE_S)
    scene.has_met = any(fault.hits for fault in faults)


def store_500(scene: Scene) -> None:
    _store(scene, status=500, body="<Error><Code>InternalError</Code></Error>")


def store_hangs(scene: Scene) -> None:
    _store(scene, hangs=True)


def store_resets(scene: Scene) -> None:
    _store(scene, resets=True)


def database_locked(scene: Scene) -> None:
    locker = threading.Thread(target=lock_sqlite, args=(_sqlite_of(scene), 2.0))
    locker.start()
    scene.go_on()
    locker.join()


def _sqlite_of(scene: Scene) -> str:
    return make_url(scene.settings.database_url).database or ""


def database_restarted(scene: Scene) -> None:
    assert scene.postgres is not None
    scene.postgres.restart()


def commit_lost(scene: Scene) -> None:
    _cut_commits(scene, committed=False)


def commit_unanswered(scene: Scene) -> None:
    _cut_commits(scene, committed=True)


def _cut_commits(scene: Scene, *, committed: bool) -> None:
    assert scene.network is not None
    with scene.network.commits_cut(committed=committed) as cuts:
        scene.go_on()
        hold(_OUTAGE_S)
    scene.has_met = bool(cuts)


def disk_full(scene: Scene) -> None:
    filler = Path(scene.environment["DREAM_WORK_DIR"]) / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), b"\0" * 4096)
    scene.go_on()
    hold(_OUTAGE_S)
    filler.unlink()


def rabbitmq_cut(scene: Scene) -> None:
    assert scene.network is not None
    scene.network.cut()
    scene.go_on()
    hold(_OUTAGE_S)
    scene.network.restore()


def rabbitmq_emptied(scene: Scene) -> None:
    purge_queues(scene.settings)


def dream_up_killed(scene: Scene) -> None:
    assert isinstance(scene, StackScene)
    scene.kill_and_start_again()


STRIKES: dict[str, Callable[[Scene], None]] = {
    "killed": killed,
    "paused": paused,
    "all killed": all_killed,
    "broker restarted": broker_restarted,
    "broker emptied": broker_emptied,
    "message doubled": message_doubled,
    "scheduler killed": scheduler_killed,
    "child killed": child_killed,
    "store 500": store_500,
    "store hangs": store_hangs,
    "store resets": store_resets,
    "database locked": database_locked,
    "database restarted": database_restarted,
    "COMMIT lost": commit_lost,
    "COMMIT unanswered": commit_unanswered,
    "disk full": disk_full,
    "RabbitMQ: killed": killed,
    "RabbitMQ: cut": rabbitmq_cut,
    "RabbitMQ: emptied": rabbitmq_emptied,
    "dream up killed": dream_up_killed,
}
