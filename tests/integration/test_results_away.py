"""Callers' tasks while a server is away at their end: the Redis that keeps results, for long, or the broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dream.compat import Celery
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.network import Proxy
from tests.processes import WORKER, Parts
from tests.this_process import configured

pytestmark = pytest.mark.slow

SHOP = """
import os, time
from dream.compat import Celery

app = Celery("shop")

@app.task(name="shop.note", track_started=True)
def note(path):
    with open(path, "a") as file:
        file.write("run\\n")
    return "noted"

@app.task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.again", bind=True)
def again(self, path):
    with open(path, "a") as file:
        file.write("run\\n")
    while not os.path.exists(path + ".go"):
        time.sleep(0.02)
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.request.retries

@app.task(name="shop.wait")
def wait(path):
    with open(path, "a") as file:
        file.write("run\\n")
    while not os.path.exists(path + ".go"):
        time.sleep(0.02)
    return 3
"""


@pytest.fixture
def environment(servers: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of this process, which sees that Redis at all times."""
    environment = environment_in(tmp_path, servers)
    (tmp_path / "shop.py").write_text(SHOP)
    prepare(settings_from(environment))
    with configured(environment):
        yield environment


def through(environment: dict[str, str], network: Proxy) -> str:
    """The same Redis, by way of that network."""
    url = urlsplit(environment["DREAM_BROKER_URL"])
    return url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{network.port}").geturl()


def with_broker_through(environment: dict[str, str], network: Proxy) -> dict[str, str]:
    """Its broker by way of that network, its results not."""
    return {
        "DREAM_BROKER_URL": through(environment, network),
        "DREAM_REDIS_URL": environment["DREAM_BROKER_URL"],
    }


@pytest.fixture
def network(environment: dict[str, str]) -> Iterator[Proxy]:
    url = urlsplit(environment["DREAM_BROKER_URL"])
    with closing(Proxy((url.hostname or "", url.port or 0))) as network:
        yield network


def test_what_cannot_say_how_it_ended_runs_later(environment: dict[str, str], network: Proxy, tmp_path: Path) -> None:
    """It went to the dead letters: one unheard, and one that tells of its start without having run at all."""
    app, noted, parts = Celery("caller"), tmp_path / "noted", Parts(environment, tmp_path)
    try:
        redis_url = through(environment, network)
        worker = parts.start("-A", "shop", program=[str(WORKER)], cwd=tmp_path, DREAM_REDIS_URL=redis_url)
        network.cut()
        tasks = [app.send_task("shop.note", (str(noted),)), app.send_task("shop.add", (1, 2))]
        wait_for(lambda: parts.log_of(worker).count("run_handed_back") >= 2, 100, what="both of them again")
        assert not noted.exists()
        network.restore()
        assert [task.get(timeout=30) for task in tasks] == ["noted", 3]
        assert noted.read_text() == "run\n"
    finally:
        parts.end()


def test_a_link_waits_for_a_broker_that_is_away(environment: dict[str, str], network: Proxy, tmp_path: Path) -> None:
    """The task that it follows ended as a failure."""
    app, noted, parts = Celery("caller"), tmp_path / "noted", Parts(environment, tmp_path)
    try:
        servers = with_broker_through(environment, network)
        worker = parts.start("-A", "shop", program=[str(WORKER)], cwd=tmp_path, **servers)
        first = app.send_task("shop.wait", (str(noted),), link=app.signature("shop.add", (4,)))
        wait_for(noted.exists, what="the run")
        network.cut()
        Path(f"{noted}.go").touch()
        wait_for(lambda: "server_away" in parts.log_of(worker), what="a link that cannot be sent")
        network.restore()
        assert first.get(timeout=30) == 3
        assert first.children[0].get(timeout=30) == 7
    finally:
        parts.end()


def test_a_retry_that_cannot_be_sent_for_a_minute_is_made_later(
    environment: dict[str, str], network: Proxy, tmp_path: Path
) -> None:
    """The task ended as a failure, with an error of the broker's; its run is repeated, and not counted."""
    app, noted, parts = Celery("caller"), tmp_path / "noted", Parts(environment, tmp_path)
    try:
        servers = with_broker_through(environment, network)
        worker = parts.start("-A", "shop", program=[str(WORKER)], cwd=tmp_path, **servers)
        task = app.send_task("shop.again", (str(noted),))
        wait_for(noted.exists, what="the run")
        network.cut()
        Path(f"{noted}.go").touch()
        wait_for(lambda: "retry_not_sent" in parts.log_of(worker), 90, what="the end of its patience")
        assert task.state == "RETRY"
        network.restore()
        assert task.get(timeout=30) == 1
        assert noted.read_text() == "run\n" * 3
    finally:
        parts.end()
