"""Callers' tasks while the Redis that keeps results is away for longer than a worker waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dream import producer
from dream.compat import Celery
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.integration.test_callers_tasks import WORKER, forget
from tests.network import Proxy
from tests.processes import Parts

SHOP = """
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
"""


@pytest.fixture
def environment(servers: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of this process, which sees that Redis at all times."""
    environment = environment_in(tmp_path, servers)
    (tmp_path / "shop.py").write_text(SHOP)
    prepare(settings_from(environment))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        forget()
        yield environment
        producer.default().broker.close()
    forget()


def test_what_cannot_say_how_it_ended_runs_later(environment: dict[str, str], tmp_path: Path) -> None:
    """It went to the dead letters: one unheard, and one that tells of its start without having run at all."""
    url = urlsplit(environment["DREAM_BROKER_URL"])
    app, noted = Celery("caller"), tmp_path / "noted"
    with closing(Proxy((url.hostname or "", url.port or 0))) as network:
        parts = Parts(environment, tmp_path)
        through = url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{network.port}").geturl()
        try:
            worker = parts.start("-A", "shop", program=[str(WORKER)], cwd=tmp_path, DREAM_REDIS_URL=through)
            network.cut()
            tasks = [app.send_task("shop.note", (str(noted),)), app.send_task("shop.add", (1, 2))]
            wait_for(lambda: parts.log_of(worker).count("run_handed_back") >= 2, 100, what="both of them again")
            assert not noted.exists()
            network.restore()
            assert [task.get(timeout=30) for task in tasks] == ["noted", 3]
            assert noted.read_text() == "run\n"
        finally:
            parts.end()
