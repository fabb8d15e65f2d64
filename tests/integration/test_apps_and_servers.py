"""Servers of an app: its tasks and results are on its own, independent of the process's first action."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from dream.messages.registry import CLEANUP_TOKENS
from dream.settings import Settings
from dream.work.results import ResultStore, meta_of
from tests.conftest import migrated_sqlite

HEAD = """
import sys
from dream.compat import AsyncResult, Celery, exceptions
first, second = sys.argv[1:3]
"""


class Server:
    """One database of a Redis.

    Parameters:
      url: its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.results = ResultStore(Settings(broker_url=url))

    def names_on(self, queue: str = "default") -> list[str]:
        """The tasks that wait."""
        return [json.loads(data)["actor_name"] for data in self.client.hvals(f"dream:{queue}.msgs")]

    def close(self) -> None:
        self.client.flushdb()
        self.client.close()
        self.results.close()


@pytest.fixture
def two(servers: dict[str, str]) -> Iterator[tuple[Server, Server]]:
    """Two servers that are not where a process looks to which nobody has said anything."""
    base = urlsplit(servers["DREAM_BROKER_URL"])
    found = tuple(Server(base._replace(path=f"/{number}").geturl()) for number in (13, 14))
    yield found[0], found[1]
    for each in found:
        each.close()


def said(two: tuple[Server, Server], folder: Path, program: str, **variables: str) -> list[str]:
    """The lines that a process writes whose environment names no server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAM_")}
    migrated_sqlite(folder / "dream.db")
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + program, *(each.url for each in two)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**environment, "DREAM_LOG_LEVEL": "error", **variables},
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


LOOKS = (
    "app.AsyncResult('t').state",
    "AsyncResult('t', app=app).status",
    "AsyncResult('t').state",
    "AsyncResult('t', backend=app.backend).state",
    "app.backend.get_state('t')",
    "app.backend.get_task_meta('t')['status']",
    "AsyncResult('p').children[0].state",
    "app.AsyncResult('p').children[0].backend.get_state('t')",
    "app.signature('x', task_id='t').freeze().state",
    "app.task(name='x')(print).AsyncResult('t').state",
)


@pytest.mark.slow
def test_a_process_that_only_reads_looks_where_its_app_says(two: tuple[Server, Server], tmp_path: Path) -> None:
    """Each look is the first of its process, which is forked: to import dream for each would cost more."""
    two[0].results.put(meta_of("t", "SUCCESS", 7))
    two[0].results.put(meta_of("p", "SUCCESS", children=["t"]))
    program = f"""
import os
for look in {LOOKS!r}:
    child = os.fork()
    if not child:
        app = Celery("shop", broker=first, backend=first)
        print(look, eval(look), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    assert said(two, tmp_path, program) == [f"{look} SUCCESS" for look in LOOKS]


def test_results_may_be_on_another_server_than_messages(two: tuple[Server, Server], tmp_path: Path) -> None:
    two[1].results.put(meta_of("t", "SUCCESS", 7))
    program = "app = Celery('shop', broker=first, backend=second)\nprint(app.AsyncResult('t').get(timeout=5))"
    assert said(two, tmp_path, program) == ["7"]


def test_the_first_look_of_a_process_may_be_any(two: tuple[Server, Server], tmp_path: Path) -> None:
    """Calls that forget or revoke as well as calls that read; the configuration may come after the app."""
    for task_id in ("t", "u"):
        two[0].results.put(meta_of(task_id, "SUCCESS", 7))
    program = """
app = Celery("shop")
app.conf.update(broker_url=first, result_backend=first)
app.AsyncResult("t").forget()
app.AsyncResult("late").revoke()
print(app.AsyncResult("t").state, app.AsyncResult("late").state, app.AsyncResult("u").get(timeout=5))
"""
    assert said(two, tmp_path, program) == ["PENDING REVOKED 7"]
    assert two[0].client.zscore("dream:revoked", "late") is not None


def test_a_process_that_has_looked_before_it_was_configured_looks_anew(
    two: tuple[Server, Server], tmp_path: Path
) -> None:
    two[0].results.put(meta_of("t", "SUCCESS", 7))
    program = """
from dream import producer
app = Celery("shop", set_as_current=False)
_ = producer.default().connections.results
app.conf.broker_url = first
print(app.control.ping(timeout=0.1), app.AsyncResult("t").state, producer.default().settings.broker_url == first)
"""
    assert said(two, tmp_path, program) == ["[] SUCCESS True"]


def test_two_apps_in_one_process_have_each_its_own_servers(two: tuple[Server, Server], tmp_path: Path) -> None:
    for number, server in enumerate(two):
        server.results.put(meta_of("t", "SUCCESS", number))
    program = f"""
one = Celery("one", broker=first)
other = Celery("other", broker=second, backend=second)
third = Celery("third")  # nothing is said of it: it goes where the process goes
print([app.AsyncResult("t").get(timeout=5) for app in (one, other, third, one)])
print(AsyncResult("t", other.backend).get(timeout=5), AsyncResult("t", app=other).get(timeout=5))
add = other.task(name="other.add")(lambda x, y: x + y)
one.send_task("one.sub", (2, 1))
add.delay(1, 2)
other.send_task({CLEANUP_TOKENS!r})
other.control.revoke("r")
add.backend.store_result("kept", 3, "SUCCESS")
print(other.AsyncResult("kept").get(timeout=5), one.AsyncResult("kept").state, other.AsyncResult("r").state)
print(AsyncResult("t").app is third, one.control.purge(), other.control.inspect(timeout=0.1).ping())
other.close()
print(other.AsyncResult("t").get(timeout=5))
"""
    assert said(two, tmp_path, program) == ["[0, 1, 0, 0]", "1 1", "3 PENDING REVOKED", "True 1 None", "1"]
    assert [sorted(each.names_on()) for each in two] == [[], sorted([CLEANUP_TOKENS, "other.add"])]
    assert [each.client.zscore("dream:revoked", "r") is not None for each in two] == [False, True]


def test_the_environment_goes_before_every_app(two: tuple[Server, Server], tmp_path: Path) -> None:
    two[0].results.put(meta_of("t", "SUCCESS", 7))
    program = """
apps = [Celery("one", broker="redis://127.0.0.1:1/0"), Celery("other", broker=second, backend=second)]
print([app.AsyncResult("t").state for app in apps])
"""
    assert said(two, tmp_path, program, DREAM_BROKER_URL=two[0].url) == ["['SUCCESS', 'SUCCESS']"]


def test_what_is_forked_makes_connections_of_its_own(two: tuple[Server, Server], tmp_path: Path) -> None:
    two[1].results.put(meta_of("t", "SUCCESS", 7))
    program = """
import os
one, other = Celery("one", broker=first), Celery("other", broker=second)
one.AsyncResult("t").state, other.AsyncResult("t").state
before = other.servers
if not os.fork():
    print(other.servers is before, other.AsyncResult("t").get(timeout=5), flush=True)
    os._exit(0)
os.wait()
print(other.servers is before)
"""
    assert said(two, tmp_path, program) == ["False 7", "True"]


def test_tasks_of_dreams_own_go_where_the_current_app_goes(two: tuple[Server, Server], tmp_path: Path) -> None:
    """If the environment names no broker, and before anything else is asked of the app: its workers are there."""
    program = """
app = Celery("shop", broker=first)
from dream.celery.tasks.token_tasks import cleanup_expired_tokens
print(cleanup_expired_tokens.delay().state)
"""
    assert said(two, tmp_path, program) == ["PENDING"]
    assert two[0].names_on() == [CLEANUP_TOKENS]


def test_a_worker_in_the_tests_own_process_is_on_its_apps_servers(two: tuple[Server, Server], tmp_path: Path) -> None:
    program = """
from dream.compat.contrib.testing.worker import start_worker
one, other = Celery("one", broker=first), Celery("other", broker=second)
print(one.AsyncResult("t").state)
add = other.task(name="other.add")(lambda x, y: x + y)
with start_worker(other, perform_ping_check=False):
    print(add.delay(1, 2).get(timeout=10))
"""
    assert said(two, tmp_path, program) == ["PENDING", "3"]


def test_an_app_that_dream_cannot_serve_keeps_nobody_from_uploading(two: tuple[Server, Server], tmp_path: Path) -> None:
    """Tests of a project may give it `memory://`; who uses the app is told."""
    program = """
from dream import producer
app = Celery("shop", broker="memory://", task_always_eager=True)
print(producer.default().settings.broker_url, app.task(name="x")(lambda: 7).delay().get())
try:
    app.send_task("y")
except Exception as error:
    print(error)
"""
    [url, refusal] = said(two, tmp_path, program)
    assert url == "redis://127.0.0.1:6379/0 7"
    assert "memory://" in refusal
