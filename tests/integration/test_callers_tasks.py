"""Tasks that a caller defines, sent through the façade and run by a real worker process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import Message
from pydantic import BaseModel

from dream import producer
from dream.compat import Celery
from dream.compat.contrib.abortable import AbortableAsyncResult
from dream.compat.envelope import Envelope
from dream.compat.exceptions import InvalidTaskError, Reject, TaskRevokedError, TimeLimitExceeded
from dream.compat.worker.control import inspect_command
from dream.compat.worker.unwanted import Revoked
from dream.messages.registry import CLEANUP_TOKENS
from dream.work.broker import send
from dream.work.broker.redis import RedisBroker
from dream.work.messages import DELIVERY_ID
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.processes import WORKER, Parts
from tests.this_process import configured

SHOP = """
import pathlib, time
from dream.compat import Celery, shared_task
from dream.compat.contrib.abortable import AbortableTask
from dream.compat.exceptions import Reject, SoftTimeLimitExceeded
from dream.compat.worker.control import inspect_command
from pydantic import BaseModel

app = Celery("shop", task_routes={"shop.routed": "mail"})

def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")

@shared_task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.look", bind=True)
def look(self, *args):
    r = self.request
    app_id, queue = r.properties.get("app_id"), r.delivery_info["routing_key"]
    return [r.id, r.root_id, r.parent_id, r.headers, queue, app_id, list(args)]

@app.task(name="shop.routed", bind=True)
def routed(self):
    return self.request.delivery_info["routing_key"]

@app.task(name="shop.named")
def named(**kwargs):
    return kwargs

@app.task(name="shop.fail")
def fail():
    raise LookupError("gone", 7)

@app.task(name="shop.again", bind=True, max_retries=2, default_retry_delay=0.1)
def again(self, path):
    note(path, f"{self.request.id} {self.request.retries}")
    raise self.retry(exc=KeyError("gone"))

@app.task(name="shop.later", bind=True)
def later(self, **how):
    raise self.retry(countdown=60, **how)

@app.task(name="shop.soft", soft_time_limit=0.5)
def soft():
    try:
        while True:
            time.sleep(0.02)
    except SoftTimeLimitExceeded:
        return "cleaned up"

@app.task(name="shop.endless")
def endless(path):
    note(path, "begun")
    while True:
        try:
            time.sleep(0.02)
        except Exception:
            pass

@app.task(name="shop.blocks", time_limit=0.5)
def blocks():
    time.sleep(60)

@app.task(name="shop.blocks_on")
def blocks_on(path):
    note(path, "begun")
    time.sleep(60)

@app.task(name="shop.second_try", bind=True)
def second_try(self):
    if not self.request.delivery_info["redelivered"]:
        raise Reject(requeue=True)
    return "second"

class Hooked(app.Task):
    def on_success(self, retval, task_id, args, kwargs):
        raise RuntimeError("in a hook")

@app.task(name="shop.hooked", base=Hooked)
def hooked():
    return "done"

@app.task(name="shop.rejects")
def rejects():
    raise Reject("no use", requeue=False)

@app.task(name="shop.limits", bind=True, time_limit=60, soft_time_limit=45)
def limits(self):
    return [self.request.time_limit, self.request.soft_time_limit]

class Price(BaseModel):
    cents: int

@app.task(name="shop.price", pydantic=True)
def price(price: Price) -> Price:
    return Price(cents=price.cents + 1)

@inspect_command(args=[("factor", int)])
def answer(state, factor=1):
    return [state.app.main, 42 * factor]

@app.task(name="shop.polite", bind=True, base=AbortableTask)
def polite(self, path):
    note(path, "begun")
    while not self.is_aborted():
        time.sleep(0.02)
    return "aborted"

@app.task(name="shop.dies", bind=True)
def dies(self, path):
    import os, signal
    note(path, "begun")
    if not pathlib.Path(path + ".died").exists():
        pathlib.Path(path + ".died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "run again"

if __name__ == "__main__":
    app.worker_main(["worker", "-c", "4", "-Q", "default,mail"])
"""


@pytest.fixture(scope="module")
def shop(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """An app in this process; its worker runs in another, with the tasks in a file."""
    folder = tmp_path_factory.mktemp("shop")
    environment = {**environment_in(folder, servers), "DREAM_HEARTBEAT_S": "2"}
    (folder / "shop.py").write_text(SHOP)
    prepare(settings_from(environment))
    with configured(environment):
        parts = Parts(environment, folder)
        parts.start(program=[str(folder / "shop.py")], cwd=folder)  # as `app.worker_main` starts it
        yield Celery("caller", task_routes={"shop.routed": "mail"})
        parts.end()


def test_a_task_runs_and_its_result_comes_back(shop: Celery) -> None:
    results = [shop.send_task("shop.add", (number, 1)) for number in range(20)]
    assert [result.get(timeout=10) for result in results] == list(range(1, 21))
    assert shop.send_task("shop.routed").get(timeout=10) == "mail"


def test_a_run_sees_what_was_sent(shop: Celery) -> None:
    how: dict[str, Any] = {"task_id": "look-1", "headers": {"tenant": 7}, "queue": "mail", "app_id": "web"}
    found = shop.send_task("shop.look", ({"a": [1]},), **how).get(timeout=10)
    assert found == ["look-1", "look-1", None, {"tenant": 7}, "mail", "web", [{"a": [1]}]]


def test_an_argument_may_have_any_name(shop: Celery) -> None:
    """Also one that a function of ours on the way has."""
    named = {"name": 1, "task": 2, "broker": 3, "message": 4, "args": 5, "kwargs": 6, "queue": 7, "delay": 8}
    assert shop.send_task("shop.named", kwargs=named).get(timeout=10) == named


def test_an_error_comes_back_as_its_own_class(shop: Celery) -> None:
    result = shop.send_task("shop.fail")
    with pytest.raises(LookupError, match="gone") as caught:
        result.get(timeout=10)
    assert caught.value.args == ("gone", 7)
    assert "in fail" in (result.traceback or "")


def test_a_retry_keeps_the_id_and_ends_after_its_number(shop: Celery, tmp_path: Path) -> None:
    result = shop.send_task("shop.again", (str(tmp_path / "runs"),))
    with pytest.raises(KeyError, match="gone"):
        result.get(timeout=15)
    assert (tmp_path / "runs").read_text().split("\n") == [f"{result.id} {number}" for number in range(3)] + [""]


@pytest.mark.parametrize(("how", "place"), [({}, None), ({"priority": 8}, 8), ({"priority": 9}, 9)])
def test_a_retry_keeps_the_place_of_its_message(shop: Celery, how: dict[str, int], place: int | None) -> None:
    """The bridge moves a message with the number of its sender, for whom 9 may be last, and with the normal place."""
    broker = shop.servers.broker
    assert isinstance(broker, RedisBroker)
    name = f"later-{place}"
    send(broker, Envelope(task="shop.later", id=name, kwargs=how, priority=9).to_message(shop.settings.queue_prefix), 0)

    def retry() -> dict[str, Any] | None:
        delayed = [json.loads(data) for data in broker.client.hvals(f"{broker.namespace}:default.DQ.msgs")]
        return next((each["options"] for each in delayed if each["message_id"] == name), None)

    options = wait_for(retry, what="the message of the retry")
    assert options is not None
    assert (options["celery"]["priority"], options.get("turn", {}).get("priority")) == (place or 9, place)


def test_a_link_is_the_child_of_the_task_before_it(shop: Celery) -> None:
    first = shop.send_task("shop.add", (1, 2), link=shop.signature("shop.look", args=("x",)))
    assert first.get(timeout=10) == 3
    [child] = first.children
    assert child.get(timeout=10)[1:3] == [first.id, first.id]
    assert child.get()[-1] == [3, "x"]


def test_what_came_too_late_or_was_revoked_does_not_run(shop: Celery) -> None:
    revoked = shop.send_task("shop.add", (1, 1), countdown=1)
    revoked.revoke()
    for result in (shop.send_task("shop.add", (1, 1), expires=-1), revoked):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=10)
        assert result.state == "REVOKED"


def test_a_hook_that_raises_changes_nothing(shop: Celery) -> None:
    """The task has succeeded: its message is no dead letter."""
    result = shop.send_task("shop.hooked")
    assert result.get(timeout=10) == "done"
    broker = producer.default().broker
    assert isinstance(broker, RedisBroker)

    def is_on(queue: str) -> bool:
        return any(result.id.encode() in data for data in broker.client.hvals(f"{broker.namespace}:{queue}.msgs"))

    wait_for(lambda: not is_on("default"), what="the ack")
    assert not is_on("default.XQ")


def test_a_message_that_says_what_cannot_be_ends_as_a_failure(shop: Celery) -> None:
    """Somebody may wait for the result."""
    celery = {"expires": "soon"}
    message: Message[None] = Message(
        "default", "shop.add", (1, 2), {}, {DELIVERY_ID: "broken:0", "celery": celery}, "broken"
    )
    shop.servers.broker.enqueue(message)
    with pytest.raises(InvalidTaskError, match="soon"):
        shop.AsyncResult("broken").get(timeout=10)


def test_bytes_among_the_revoked_that_are_no_text_hide_no_other(shop: Celery) -> None:
    """The thread that learns of them ended."""
    settings = shop.settings
    with redis.Redis.from_url(settings.events_url) as client:
        client.zadd(f"{settings.redis_prefix}:revoked", {b"\xff": time.time(), b"good": time.time()})
    revoked = Revoked(settings)
    revoked.start()
    revoked.stop()
    assert "good" in revoked


def test_a_message_that_its_task_rejects_comes_back_or_is_a_failure(shop: Celery) -> None:
    """As in Celery 5.7."""
    assert shop.send_task("shop.second_try").get(timeout=10) == "second"
    with pytest.raises(Reject, match="no use"):
        shop.send_task("shop.rejects").get(timeout=10)


def test_a_run_sees_its_time_limits(shop: Celery) -> None:
    assert shop.send_task("shop.limits").get(timeout=10) == [60, 45]
    assert shop.send_task("shop.limits", time_limit=10, soft_time_limit=5).get(timeout=10) == [10, 5]


def test_what_is_revoked_while_it_waits_ends_at_once(shop: Celery) -> None:
    """Not when it would have been due."""
    result = shop.send_task("shop.add", (1, 2), countdown=3600)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)


def test_models_are_arguments_of_a_task_that_wants_them(shop: Celery) -> None:
    class Price(BaseModel):
        cents: int

    def price(price: Price) -> Price:
        return price

    sent = shop.task(name="shop.price", pydantic=True)(price).delay(Price(cents=4))
    assert sent.get(timeout=10) == {"cents": 5}


def test_workers_answer_to_a_command_of_a_callers_own(shop: Celery) -> None:
    inspect_command(name="answer")(lambda _state: None)
    [answers] = shop.control.broadcast("answer", {"factor": 2}, reply=True, timeout=5) or []
    assert list(answers.values()) == [["shop", 84]]


def test_a_run_that_was_terminated_ends_whatever_it_catches(shop: Celery, tmp_path: Path) -> None:
    result = shop.send_task("shop.endless", (str(tmp_path / "runs"),))
    wait_for((tmp_path / "runs").exists, what="its begin")
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)


def test_a_run_that_was_terminated_while_it_blocks_holds_nobody_up(shop: Celery, tmp_path: Path) -> None:
    result = shop.send_task("shop.blocks_on", (str(tmp_path / "runs"),))
    wait_for((tmp_path / "runs").exists, what="its begin")
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    assert shop.send_task("shop.add", (1, 1)).get(timeout=20) == 2
    assert (tmp_path / "runs").read_text() == "begun\n"


def test_a_run_that_looks_hears_that_it_is_aborted(shop: Celery, tmp_path: Path) -> None:
    path = tmp_path / "noted"
    sent = shop.send_task("shop.polite", (str(path),))
    wait_for(path.exists, what="the run")
    result = AbortableAsyncResult(sent.id)
    result.abort()
    assert result.get(timeout=10) == "aborted"


def test_time_limits_hold_for_code_that_listens(shop: Celery, tmp_path: Path) -> None:
    assert shop.send_task("shop.soft").get(timeout=10) == "cleaned up"
    with pytest.raises(TimeLimitExceeded):
        shop.send_task("shop.endless", (str(tmp_path / "runs"),), time_limit=0.5).get(timeout=10)


def test_a_run_whose_worker_is_killed_runs_again(shop: Celery, tmp_path: Path) -> None:
    assert shop.send_task("shop.dies", (str(tmp_path / "runs"),)).get(timeout=30) == "run again"
    assert (tmp_path / "runs").read_text() == "begun\nbegun\n"


def test_code_that_blocks_is_told_as_ended_and_its_worker_is_replaced(shop: Celery) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeLimitExceeded):
        shop.send_task("shop.blocks").get(timeout=15)
    assert time.monotonic() - begun < 5
    # The code blocks for a minute, and what runs beside it would be waited for half a minute.
    assert shop.send_task("shop.add", (1, 1)).get(timeout=20) == 2


def test_a_waiting_task_of_ours_can_be_revoked(shop: Celery) -> None:
    """It has a row: that says so, whoever claims it."""
    result = shop.send_task(CLEANUP_TOKENS, countdown=1)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)


@pytest.mark.slow
def test_modules_to_include_are_found_in_the_folder_that_a_worker_starts_in(
    servers: dict[str, str], tmp_path: Path
) -> None:
    environment = environment_in(tmp_path, servers)
    (tmp_path / "only_tasks.py").write_text(
        "from dream.compat import shared_task\n@shared_task(name='only.add')\ndef add(x, y):\n    return x + y\n"
    )
    prepare(settings_from(environment))
    with configured(environment):
        parts = Parts(environment, tmp_path)
        try:
            parts.start("-I", "only_tasks", program=[str(WORKER)], cwd=tmp_path)
            assert Celery("caller", set_as_current=False).send_task("only.add", (1, 2)).get(timeout=20) == 3
        finally:
            parts.end()
