"""Tests that were written with Celery's fixtures for pytest run with ours: on a worker in their own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment_in, prepare, settings_from

CONFTEST = """
import pytest

pytest_plugins = ("dream.compat.contrib.pytest",)

@pytest.fixture(scope="session")
def celery_config():
    return {"result_extended": True}

@pytest.fixture(scope="session")
def celery_includes():
    return ["shop_tasks"]
"""
TASKS = """
import time
from dream.compat import shared_task

@shared_task(name="shop.add")
def add(x, y):
    return x + y

@shared_task(name="shop.fail")
def fail():
    raise LookupError("gone")

@shared_task(name="shop.wait")
def wait(seconds):
    time.sleep(seconds)
"""
TESTS = """
import logging
import time

import pytest

from dream.compat import signals, states
from dream.compat.app.trace import LOG_FAILURE, LOG_RECEIVED, LOG_SUCCESS
from dream.compat.contrib.testing.app import TestApp, setup_default_app
from dream.compat.contrib.testing.manager import Manager, Sentinel
from dream.compat.contrib.testing.worker import start_worker
from dream.compat.current import get_current_app
from dream.compat.envelope import Envelope
from dream.compat.exceptions import InvalidTaskError, NotRegistered
from dream.compat.worker import state
from shop_tasks import add, fail, wait


@pytest.fixture
def manager(celery_session_app, celery_session_worker):
    celery_session_app.set_current()
    return Manager(celery_session_app)


def test_a_task_that_a_test_defines(celery_app, celery_worker):
    @celery_app.task(name="shop.mul", queue="elsewhere")
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16
    assert list(celery_app.amqp.queues) == ["celery"]


@pytest.mark.celery(task_default_queue="mine")
def test_a_test_has_settings_of_its_own(celery_app, depends_on_current_app):
    assert (celery_app.conf.task_default_queue, celery_app.conf.result_extended) == ("mine", True)
    assert get_current_app() is celery_app


def test_signals_and_what_succeeded_are_those_of_the_process(manager):
    received = []
    def note(request, **_):
        received.append((request.id, time.monotonic() >= sent_at + 0.01))
    signals.task_received.connect(note)
    sent_at = time.monotonic()
    result = manager.app.send_task("shop.add", (1, 2), ignore_result=True)
    def succeeded():
        assert result.id in state.successful_requests
    manager.wait_for(succeeded, catch=(AssertionError,))
    assert received == [(result.id, True)], "the sender's code goes first"
    assert manager.app.backend.get_task_meta(result.id) == {"status": states.PENDING, "result": None}


@pytest.mark.parametrize("task, args, name, level, last", [
    (add, (2, 2), "celery.app.trace", logging.INFO, LOG_SUCCESS),
    (fail, (), "celery.app.trace.dream", logging.ERROR, LOG_FAILURE),
])
def test_lines_tell_of_a_run_as_celerys_do(manager, caplog, task, args, name, level, last):
    result = task.s(*args).set(argsrepr="(…)", kwargsrepr="{…}", shadow="shown").delay()
    result.get(timeout=10, propagate=False)
    def lines():
        of_it = [r for r in caplog.records if getattr(r, "data", {}).get("id") == result.id]
        found = [(r.name, r.levelno, r.msg) for r in of_it]
        assert found == [
            ("celery.worker.strategy", logging.INFO, LOG_RECEIVED), (name, level, last)
        ]
        assert {(r.data["name"], r.data["args"], r.data["kwargs"]) for r in of_it} == {("shown", "(…)", "{…}")}
    manager.wait_for(lines, catch=(AssertionError,))


class Unshowable(Exception):
    def __repr__(self):
        raise RuntimeError("it has no looks")


@pytest.mark.celery(task_default_queue="mine")
def test_a_failure_is_in_the_log_before_anybody_hears_of_it(celery_app, caplog, depends_on_current_app):
    # And an error that cannot be shown there is kept all the same.
    kept = []
    @celery_app.task(name="shop.unshowable")
    def unshowable():
        raise Unshowable
    with start_worker(celery_app):
        for _ in range(5):
            assert fail.delay().get(timeout=10, propagate=False).args == ("gone",)
            kept.append(len([r for r in caplog.records if r.msg == LOG_FAILURE]))
        assert unshowable.delay().get(timeout=10, propagate=False).__class__.__name__ == "Unshowable"
    assert kept == [1, 2, 3, 4, 5]


def test_what_is_kept_can_be_asked_and_written(manager):
    backend = manager.app.backend
    done = add.delay(1, 2)
    assert done.get(timeout=10) == 3
    assert (done.backend.get_state(done.id), add.backend.get_result(done.id)) == (states.SUCCESS, 3)
    assert backend.client.ttl(f"celery-task-meta-{done.id}") > 0
    assert backend.store_result("t", {"host": "other"}, "PROGRESS") == {"host": "other"}
    assert backend.get_task_meta("t")["result"] == {"host": "other"}
    backend.mark_as_failure("t", KeyError("gone"), traceback="there")
    assert (repr(backend.get_result("t")), backend.get_traceback("t")) == ("KeyError('gone')", "there")
    backend.mark_as_done("t", 4)
    assert (backend.get_state("t"), backend.get_result("t")) == (states.SUCCESS, 4)
    backend.forget("t")
    assert backend.get_status("t") == states.PENDING
    with pytest.raises(NotImplementedError, match="chord"):
        backend.ensure_chords_allowed()


def test_a_revocation_does_not_change_what_runs_elsewhere(manager):
    backend = manager.app.backend
    backend.store_result("elsewhere", None, "PROGRESS")
    assert manager.app.control.revoke(["elsewhere", "nowhere"], reply=True, timeout=10)
    assert (backend.get_state("elsewhere"), backend.get_state("nowhere")) == ("PROGRESS", states.REVOKED)


def test_a_manager_waits(manager):
    assert manager.join([add.delay(1, 1), add.delay(2, 2)], timeout=10) == [2, 4]
    running = wait.delay(1.5)
    manager.assert_received([running.id], interval_step=0)
    manager.assert_accepted([running.id], interval_step=0)
    with pytest.raises(AssertionError, match="Missing task results"):
        manager.join(running, timeout=0.1, max_retries=2)
    manager.wait_until_idle()
    assert list(manager.inspect(1).active().values()) == [[]]
    assert running.successful()
    def never():
        raise Sentinel
    manager.ensure_not_for_a_while(never, (Sentinel,), max_retries=1)
    with pytest.raises(AssertionError, match="Should not have happened: it"):
        manager.ensure_not_for_a_while(lambda: None, (Sentinel,), desc="it")
    with pytest.raises(Sentinel):
        manager.assert_result_tasks_in_progress_or_completed([wait.AsyncResult("nobody")], max_retries=1)


@pytest.mark.celery(task_default_queue="mine")
def test_what_no_worker_knows_or_reads_is_told_of(celery_app, depends_on_current_app):
    told = []
    def unknown(name, id, message, exc, **_):
        told.append((name, id, message.actor_name, type(exc)))
    def rejected(message, exc, **_):
        told.append((message.actor_name, message.message_id, type(exc)))
    signals.task_unknown.connect(unknown)
    signals.task_rejected.connect(rejected)
    with start_worker(celery_app):
        strange = celery_app.send_task("nobody.knows")
        with pytest.raises(NotRegistered):
            strange.get(timeout=20)
        broken = Envelope(task="shop.add", id="broken", queue="mine", expires="never").to_message()
        celery_app.servers.broker.enqueue(broken)
        with pytest.raises(InvalidTaskError):
            celery_app.AsyncResult("broken").get(timeout=10)
    assert told == [
        ("nobody.knows", strange.id, "nobody.knows", NotRegistered), ("shop.add", "broken", ValueError)
    ]


@pytest.mark.celery(task_default_queue="mine")
def test_what_runs_when_the_worker_stops_goes_back(celery_app, depends_on_current_app):
    with start_worker(celery_app, shutdown_timeout=3, queues="other", hostname="first@here"):
        queues = celery_app.control.inspect(["first@here"]).active_queues()
        assert queues == {"first@here": [{"name": "mine"}, {"name": "other"}]}
        begun = wait.delay(30)
        Manager(celery_app).assert_accepted([begun.id])
    assert begun.state == states.PENDING
    assert celery_app.control.purge() == 1


def test_the_current_app_is_the_one_before(celery_app):
    celery_app.set_current()
    other = TestApp()
    with setup_default_app(other):
        other.set_current()
    with setup_default_app(other, use_trap=True):
        with pytest.raises(RuntimeError, match="Test depends on current_app"):
            add.delay(1, 1)
    assert get_current_app() is celery_app
"""


@pytest.fixture
def folder(servers: dict[str, str], tmp_path: Path) -> Path:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "shop_tasks.py").write_text(TASKS)
    (folder / "test_shop.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return folder


@pytest.mark.slow
def test_a_callers_tests_run_on_a_worker_in_their_process(servers: dict[str, str], folder: Path) -> None:
    environment = environment_in(folder, servers)
    prepare(settings_from(environment))
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--timeout", "60", str(folder)]
    how = {**os.environ, **environment, "WORKER_LOGLEVEL": "INFO", "DREAM_UNKNOWN_TASK_S": "0.1"}
    answer = subprocess.run(command, cwd=folder, env=how, capture_output=True, text=True, timeout=110)
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
    assert "12 passed" in answer.stdout
