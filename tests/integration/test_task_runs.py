"""Runs of callers' tasks in a real worker process: through their base classes, and to an end whatever they raise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream.compat import Celery
from dream.compat.exceptions import EncodeError, TaskError, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from dream.work.broker.redis import RedisBroker
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.processes import WORKER, Parts
from tests.this_process import configured

APP = """
import asyncio, contextvars, sys
from pathlib import Path
from dream.compat import Celery, Task, shared_task, signals
from dream.compat.worker.control import control_command

context = contextvars.ContextVar("context", default=None)

class ContextTask(Task):
    def __call__(self, *args, **kwargs):
        token = context.set(self.request.id)
        try:
            return self.run(*args, **kwargs)
        finally:
            context.reset(token)

app = Celery("shop", task_cls=ContextTask)

@app.task(name="shop.inside", bind=True)
def inside(self):
    return [context.get(), self.request.id]

@shared_task(name="shop.shared")
def shared():
    return context.get()

class Locked(Exception):
    pass

class Waiting(app.Task):
    abstract = True
    max_retries = 3

    def __call__(self, *args, **kwargs):
        try:
            if self.request.retries < 2:
                raise Locked
        except Locked:
            self.retry(countdown=0.1)
        return super().__call__(*args, **kwargs)

@app.task(name="shop.waits", bind=True, base=Waiting)
def waits(self, x):
    return [x, self.request.retries, context.get() == self.request.id]

# --- ends

class Abort(BaseException):
    pass

class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no words")

ENDS = {
    "exit": lambda: sys.exit(3),
    "exit in words": lambda: sys.exit("no disk"),
    "cancelled": lambda: (_ for _ in ()).throw(asyncio.CancelledError("why")),
    "closed": lambda: (_ for _ in ()).throw(GeneratorExit("why")),
    "keyboard": lambda: (_ for _ in ()).throw(KeyboardInterrupt("why")),
    "own": lambda: (_ for _ in ()).throw(Abort("why")),
    "stops": lambda: next(iter(())),
    "unspeakable": lambda: (_ for _ in ()).throw(ValueError(Unspeakable())),
}

def note(folder, *words):
    with (Path(folder) / "said").open("a") as file:
        print(*words, file=file)

class Told(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(args[0], "on_failure", type(exc).__name__)
    def after_return(self, status, *_):
        note(_[2][0], "after_return", status)

class Early(Told):
    def before_start(self, task_id, args, kwargs):
        ENDS[args[1]]()

@app.task(name="shop.ends", base=Told)
def ends(folder, how):
    ENDS[how]()

@app.task(name="shop.ends_early", base=Early)
def ends_early(folder, how):
    return "begun"

@app.task(name="shop.hear", bind=True)
def hear(self, failed_id, folder):
    note(folder, "error link")

@app.task(name="shop.exits_on_error")
def exits_on_error(request, exc, traceback):
    sys.exit("in an error link")

class Deep:
    def __json__(self):
        raise LookupError("no words")

@app.task(name="shop.gives")
def gives(what):
    deep = []
    for _ in range(5000):
        deep = [deep]
    return {"deep": deep, "own": Deep(), "unspeakable": Unspeakable()}[what]

class Exiting(Told):
    def on_success(self, *_):
        sys.exit("in a hook")
    def on_failure(self, *_):
        sys.exit("in a hook")

@app.task(name="shop.exits_behind", base=Exiting)
def exits_behind(folder, how=None):
    if how:
        ENDS[how]()
    return "done"

@app.task(name="shop.heard")
def heard(folder):
    return "heard"

def exiting(**_):
    sys.exit("in a receiver")

@signals.task_failure.connect
def failing(sender, exception, traceback, args, **_):
    note(args[0], "task_failure", type(exception).__name__, traceback is not None)

for name in ("task_received", "task_prerun", "task_success", "task_postrun"):
    getattr(signals, name).connect(exiting, sender=None if name == "task_received" else heard, weak=False)

@app.task(name="shop.stopped", soft_time_limit=0.2, time_limit=0.6)
def stopped():
    import time
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass

@app.task(name="shop.cleans_up", time_limit=0.4)
def cleans_up(folder, how):
    import time
    note(folder, "begun")
    try:
        while True:
            time.sleep(0.01)
    except BaseException:
        if how == "error":
            raise RuntimeError("no clean-up")
        sys.exit(1)

@app.task(name="shop.retries_all", bind=True, autoretry_for=(BaseException,), max_retries=1, default_retry_delay=0.1)
def retries_all(self, how):
    import time
    if how == "exit" and not self.request.retries:
        sys.exit(1)
    while how == "limit":
        time.sleep(0.01)
    return self.request.retries

@control_command
def leave(state):
    sys.exit(1)
"""

#: What a task's code raises, with the class of its failure.
ENDS = [
    ("exit", "WorkerLostError"),
    ("exit in words", "WorkerLostError"),
    ("cancelled", "CancelledError"),
    ("closed", "GeneratorExit"),
    ("keyboard", "KeyboardInterrupt"),
    ("own", "Abort"),
    ("stops", "StopIteration"),
    ("unspeakable", "ValueError"),
]


@pytest.fixture(scope="module")
def shop(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """An app in this process; its worker runs in another, with the tasks in a file."""
    folder = tmp_path_factory.mktemp("runs")
    environment = environment_in(folder, servers)
    (folder / "shop.py").write_text(APP)
    prepare(settings_from(environment))
    with configured(environment):
        parts = Parts(environment, folder)
        parts.start("-A", "shop", program=[str(WORKER)], cwd=folder)
        yield Celery("caller")
        parts.end()


def test_a_run_goes_through_its_base_class(shop: Celery) -> None:
    """As Flask's documentation wires its context."""
    result = shop.send_task("shop.inside")
    assert result.get(timeout=10) == [result.id, result.id]
    shared = shop.send_task("shop.shared")
    assert shared.get(timeout=10) == shared.id


def test_a_retry_of_the_base_class_runs_again(shop: Celery) -> None:
    assert shop.send_task("shop.waits", (7,)).get(timeout=15) == [7, 2, True]


# --- ends


def dead_letters(shop: Celery) -> list[str]:
    broker = shop.servers.broker
    assert isinstance(broker, RedisBroker)
    return [json.loads(data)["message_id"] for data in broker.client.hvals(f"{broker.namespace}:default.XQ.msgs")]


def said_in(folder: Path, count: int) -> list[str]:
    said = folder / "said"
    wait_for(lambda: said.exists() and len(said.read_text().splitlines()) >= count, what="what was to be said")
    return sorted(said.read_text().splitlines())


@pytest.mark.parametrize(("how", "kind"), ENDS, ids=[how for how, _ in ENDS])
def test_a_task_that_raises_what_is_no_exception_has_failed(shop: Celery, tmp_path: Path, how: str, kind: str) -> None:
    """At once and as any other: who waits is told, and so are links, hooks and signals."""
    link = shop.signature("shop.hear", args=(str(tmp_path),))
    result = shop.send_task("shop.ends", (str(tmp_path), how), link_error=link)
    error = result.get(timeout=10, propagate=False)
    assert (result.state, type(error).__name__, isinstance(error, Exception)) == ("FAILURE", kind, True)
    assert kind in (result.traceback or "")
    assert "ENDS[how]()" in (result.traceback or "")
    assert said_in(tmp_path, 4) == [
        "after_return FAILURE",
        "error link",
        f"on_failure {kind}",
        f"task_failure {kind} True",
    ]
    assert result.id not in dead_letters(shop)


@pytest.mark.parametrize("what", ["deep", "own", "unspeakable"])
def test_a_result_that_cannot_be_written_is_a_failure(shop: Celery, what: str) -> None:
    with pytest.raises(EncodeError, match="its result cannot be kept"):
        shop.send_task("shop.gives", (what,)).get(timeout=10)


def test_an_exit_says_which_it_was(shop: Celery, tmp_path: Path) -> None:
    with pytest.raises(WorkerLostError, match="no disk"):
        shop.send_task("shop.ends", (str(tmp_path), "exit in words")).get(timeout=10)


def test_a_class_that_is_no_exception_is_caught_by_its_name_and_as_an_exception(shop: Celery, tmp_path: Path) -> None:
    result = shop.send_task("shop.ends", (str(tmp_path), "cancelled"))
    error = result.get(timeout=10, propagate=False)
    assert isinstance(error, asyncio.CancelledError)
    assert isinstance(error, TaskError)
    assert error.args == ("why",)


@pytest.mark.parametrize("how", ["exit", "cancelled"])
def test_a_run_that_ends_before_it_begins_has_failed(shop: Celery, tmp_path: Path, how: str) -> None:
    result = shop.send_task("shop.ends_early", (str(tmp_path), how))
    assert result.get(timeout=10, propagate=False) is not None
    assert result.state == "FAILURE"


def test_an_exit_in_a_hook_an_error_link_or_a_receiver_harms_nobody_else(shop: Celery, tmp_path: Path) -> None:
    assert shop.send_task("shop.exits_behind", (str(tmp_path),)).get(timeout=10) == "done"
    assert shop.send_task("shop.heard", (str(tmp_path),)).get(timeout=10) == "heard"
    links = [shop.signature("shop.exits_on_error"), shop.signature("shop.hear", args=(str(tmp_path),))]
    result = shop.send_task("shop.exits_behind", (str(tmp_path), "own"), link_error=links)
    assert type(result.get(timeout=10, propagate=False)).__name__ == "Abort"
    expected = ["after_return FAILURE", "after_return SUCCESS", "error link", "task_failure Abort True"]
    assert said_in(tmp_path, 4) == expected
    assert dead_letters(shop) == []


def test_what_ends_a_run_from_outside_stays_what_it_is(shop: Celery) -> None:
    with pytest.raises(TimeLimitExceeded):
        shop.send_task("shop.stopped").get(timeout=10)


@pytest.mark.parametrize("how", ["error", "exit"])
def test_what_a_task_makes_of_its_end_from_outside_does_not_count(shop: Celery, tmp_path: Path, how: str) -> None:
    with pytest.raises(TimeLimitExceeded):
        shop.send_task("shop.cleans_up", (str(tmp_path), how)).get(timeout=10)
    revoked = shop.send_task("shop.cleans_up", (str(tmp_path), how), time_limit=60)
    said_in(tmp_path, 2)
    revoked.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=10)


def test_who_retries_everything_retries_an_exit_and_no_end_from_outside(shop: Celery) -> None:
    assert shop.send_task("shop.retries_all", ("exit",)).get(timeout=10) == 1
    with pytest.raises(TimeLimitExceeded):
        shop.send_task("shop.retries_all", ("limit",), time_limit=0.4).get(timeout=10)


def test_workers_go_on_answering_after_a_command_that_exits(shop: Celery) -> None:
    shop.control.ask("leave", timeout=0.5)
    assert shop.control.ping(timeout=5)
