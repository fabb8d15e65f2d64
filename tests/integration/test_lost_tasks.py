"""Callers' tasks that kill their worker, and those beside them; and what runs when a worker is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dream.compat import Celery
from dream.compat.exceptions import WorkerLostError
from dream.runs.sending import own_broker
from dream.settings import Settings
from dream.work.broker.redis import RedisBroker
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.processes import WORKER, Parts
from tests.queues import delete_queues
from tests.this_process import configured

pytestmark = pytest.mark.slow

SHOP = """
import os, time
from dream.compat import Celery

app = Celery("shop")

def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")

class Told(app.Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(args[0], f"on_failure {type(exc).__name__}")

@app.task(name="shop.poison", base=Told)
def poison(path):
    note(path, "begun")
    time.sleep(0.2)
    os._exit(1)

@app.task(name="shop.slow")
def slow(seconds):
    time.sleep(seconds)
    return seconds

@app.task(name="shop.long")
def long(path):
    note(path, "begun")
    give_up = time.monotonic() + 30
    while not os.path.exists(path + ".go") and time.monotonic() < give_up:
        time.sleep(0.02)
    return "done"

@app.task(name="shop.blocked", bind=True)
def blocked(self, path):
    note(path, "begun")
    if not os.path.exists(path + ".go"):
        time.sleep(60)
    return "done"
"""


class Shop:
    """An app in this process, and its workers in others."""

    def __init__(self, settings: Settings, parts: Parts, folder: Path) -> None:
        self.app = Celery("caller")
        self.settings = settings
        self.parts = parts
        self._folder = folder

    def start(self, **changes: str) -> object:
        return self.parts.start("-A", "shop", "-c", "4", program=[str(WORKER)], cwd=self._folder, **changes)

    def dead_letters(self) -> int:
        broker = own_broker(self.settings)
        queue = self.settings.queue_prefix + "default"
        try:
            if isinstance(broker, RedisBroker):
                return int(broker.client.zcard(f"{broker.namespace}:{queue}.XQ"))
            broker.declare_queue(queue, ensure=True)
            return int(broker.get_queue_message_counts(queue)[2])
        finally:
            broker.close()


@pytest.fixture(params=["valkey", "rabbitmq"])
def shop(request: pytest.FixtureRequest, servers: dict[str, str], tmp_path: Path) -> Iterator[Shop]:
    environment = {**environment_in(tmp_path, servers), "DREAM_HEARTBEAT_S": "2"}
    if request.param == "rabbitmq":
        environment["DREAM_REDIS_URL"] = environment["DREAM_BROKER_URL"]
        environment["DREAM_BROKER_URL"] = request.getfixturevalue("local_rabbitmq_url")
        environment["DREAM_QUEUE_PREFIX"] = f"{environment['DREAM_REDIS_PREFIX']}-"
    (tmp_path / "shop.py").write_text(SHOP)
    settings = prepare(settings_from(environment))
    with configured(environment):
        parts = Parts(environment, tmp_path)
        yield Shop(settings, parts, tmp_path)
        parts.end()
    if request.param == "rabbitmq":
        delete_queues(settings)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_task_that_kills_its_workers_is_lost_and_those_beside_it_are_not(shop: Shop, tmp_path: Path) -> None:
    """Three workers die of it; it ends as Celery ends a task whose worker was lost, and in the dead letters."""
    shop.start()
    noted = tmp_path / "noted"
    innocents = [shop.app.send_task("shop.slow", (0.3,)) for _ in range(2)]
    poison = shop.app.send_task("shop.poison", (str(noted),))
    innocents += [shop.app.send_task("shop.slow", (0.3,)) for _ in range(6)]
    with pytest.raises(WorkerLostError, match="died 3 times"):
        poison.get(timeout=60)
    assert [each.get(timeout=60) for each in innocents] == [0.3] * 8
    wait_for(lambda: len(lines(noted)) == 4, what="the hook")
    assert lines(noted) == ["begun", "begun", "begun", "on_failure WorkerLostError"]
    wait_for(lambda: shop.dead_letters() == 1, what="the dead letter")


@pytest.mark.parametrize(
    ("shop", "task"),
    [("valkey", "shop.long"), ("valkey", "shop.blocked"), ("rabbitmq", "shop.blocked")],
    indirect=["shop"],
)
def test_what_runs_when_its_worker_is_stopped_is_handed_back(shop: Shop, tmp_path: Path, task: str) -> None:
    """It is no death, however often: each stop, the next worker takes it at once."""
    noted = tmp_path / "noted"
    result = shop.app.send_task(task, (str(noted),))
    for stops in range(3):
        worker = shop.start(DREAM_SHUTDOWN_TIMEOUT_S="2")
        wait_for(lambda: len(lines(noted)) == stops + 1, 30, what="the run")  # noqa: B023 (called in this round)
        shop.parts.stop(worker)  # type: ignore[arg-type]
    Path(f"{noted}.go").touch()
    shop.start()
    assert result.get(timeout=30) == "done"
