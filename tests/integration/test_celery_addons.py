"""Libraries that were written for Celery: the names and habits of celery-once, celery-progress, django-celery-email and
opentelemetry-instrumentation-celery, in a real worker, through the alias.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dream.compat import AsyncResult, Celery
from dream.compat.backends.base import DisabledBackend
from dream.compat.exceptions import Retry
from dream.compat.result import EagerResult
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.processes import WORKER, Parts
from tests.this_process import configured

SHOP = """
import json, pathlib
from dream.compat import alias
alias.install()
import billiard.einfo  # as opentelemetry-instrumentation-celery does
from celery import Celery, Task, registry, signals, states
from celery.backends.base import DisabledBackend
from celery.result import EagerResult, GroupResult
from celery.worker.request import Request

HERE = pathlib.Path(__file__).parent

def note(name, *what):
    with open(HERE / name, "a") as file:
        file.write(json.dumps(what) + "\\n")

class Once(Task):
    abstract = True
    once = {"graceful": False}

    def __init__(self, *args, **kwargs):
        self.made_of = self.run.__name__
        super().__init__(*args, **kwargs)

    @property
    def kept_in(self):
        return self._get_app().conf.ONCE["settings"]["url"]

    def __call__(self, *args, **kwargs):
        note("calls", self.made_of, self.kept_in)
        return super().__call__(*args, **kwargs)

    def apply_async(self, args=None, kwargs=None, **options):
        if options.get("once", {}).get("graceful"):
            return EagerResult(None, None, states.REJECTED)
        return super().apply_async(args, kwargs, **options)

@signals.before_task_publish.connect
def publishing(sender, headers, **_):
    headers["traceparent"] = f"trace-of-{registry.tasks.get(sender).name}"

@signals.task_received.connect
def received(request, **_):
    if isinstance(request, Request):
        note("received", request.name, request._request_dict["traceparent"])

@signals.task_prerun.connect(retry=True)
def starts(task, task_id, **_):
    note("traces", task.name, getattr(task.request, "traceparent", None))

@signals.task_failure.connect
def fails(einfo, **_):
    note("failures", isinstance(einfo, billiard.einfo.ExceptionInfo), type(einfo.exception).__name__)

app = Celery("shop")
app.conf.ONCE = {"settings": {"url": "redis://once"}}

@app.task(name="shop.once", base=Once)
def once(x):
    return x

@app.task(name="shop.mails", bind=True, default_retry_delay=0.2, max_retries=5, ignore_result=True)
def mails(self, addresses, bad):
    for each in addresses:
        if bad and each in bad:
            mails.retry([[each], [b for b in bad if b != each]], exc=OSError(each), throw=False)
        else:
            note("mails", each, self.request.id)

@app.task(name="shop.waits", bind=True, max_retries=3)
def waits(self, countdown):
    raise self.retry(exc=KeyError("gone"), countdown=countdown)

@app.task(name="shop.fail")
def fail():
    raise LookupError("gone")

if __name__ == "__main__":
    app.worker_main(["worker", "-c", "2"])
"""


@pytest.fixture(scope="module")
def shop(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Celery, Path]]:
    folder = tmp_path_factory.mktemp("addons")
    environment = environment_in(folder, servers)
    (folder / "shop.py").write_text(SHOP)
    prepare(settings_from(environment))
    with configured(environment):
        parts = Parts(environment, folder)
        parts.start(program=[str(folder / "shop.py")], cwd=folder)
        yield Celery("caller"), folder
        parts.end()


class Known(EagerResult):
    """As celery-progress has it for its websockets."""

    def __init__(self, id: str, ret_value: Any, state: str) -> None:  # noqa: A002 (Celery's name)
        self.backend = DisabledBackend
        super().__init__(id, ret_value, state)

    def ready(self) -> bool:
        return super(EagerResult, self).ready()


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_base_class_has_options_of_its_own(shop: tuple[Celery, Path]) -> None:
    """celery-once: `once=` of a call is its class's affair; that of a stranger is refused as ever."""
    app, folder = shop
    assert app.send_task("shop.once", (7,)).get(timeout=20) == 7
    assert ["once", "redis://once"] in lines(folder / "calls")
    program = """
import shop
print(shop.once.apply_async((1,), once={"graceful": False}).get(timeout=20))
print(shop.once.apply_async((1,), once={"graceful": True}).state, shop.once.apply_async((1,), once={"graceful": True}))
print(shop.once.apply((2,), once={}).get())
try:
    shop.fail.apply_async(once={})
except ValueError as error:
    print(error)
"""
    assert run(folder, program) == ["1", "REJECTED None", "2", "shop.fail: the option 'once' is not supported"]


def run(folder: Path, program: str) -> list[str]:
    answer = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_each_retry_of_one_run_is_sent(shop: tuple[Celery, Path]) -> None:
    """django-celery-email: one for each mail that could not be sent, and each of them may be retried again."""
    app, folder = shop
    bad = ["b", "c", "d"]
    result = app.send_task("shop.mails", (["a", *bad], bad))
    wait_for(lambda: len(lines(folder / "mails")) >= 4, what="all mails")
    assert sorted(lines(folder / "mails")) == [[each, result.id] for each in "abcd"]


def test_all_of_a_result_at_once(shop: tuple[Celery, Path]) -> None:
    """celery-progress: it also reads from a retry's traceback when the task runs again."""
    app, _ = shop
    for countdown in (600, 600.0):
        waits = app.send_task("shop.waits", (countdown,))
        wait_for(lambda waits=waits: waits.state == "RETRY", what="the retry")  # type: ignore[misc]
        meta = waits._get_task_meta()
        assert (meta["status"], repr(meta["result"])) == ("RETRY", "KeyError('gone')")
        assert re.search(r"Retry in \d{1,10}s", meta["traceback"]).group() == "Retry in 600s"  # type: ignore[union-attr]
    failed = app.send_task("shop.fail")
    failed.get(timeout=20, propagate=False)
    assert str(failed._get_task_meta()["result"]) == "gone"
    assert AsyncResult("never-sent")._get_task_meta() == {"status": "PENDING", "result": None}
    for state, is_ready in (("SUCCESS", True), ("PROGRESS", False)):
        known = Known("a", 5, state)
        assert known._get_task_meta() | {"date_done": None} == {**known._look(), "result": 5, "date_done": None}
        assert known.ready() is is_ready
    assert app.backend.get_task_meta(failed.id)["status"] == "FAILURE"


def test_a_tracer_follows_a_task(shop: tuple[Celery, Path]) -> None:
    """opentelemetry-instrumentation-celery: headers, the request of a signal, and an error in billiard's wrapping."""
    _, folder = shop
    run(folder, "import shop\nshop.fail.delay().get(timeout=20, propagate=False)")
    for name in ("traces", "received"):
        wait_for(lambda name=name: ["shop.fail", "trace-of-shop.fail"] in lines(folder / name), what=name)  # type: ignore[misc]
    wait_for(lambda: [True, "LookupError"] in lines(folder / "failures"), what="the failure")


def test_the_alias_gives_dream_under_celerys_names() -> None:
    """A missing feature says so in one sentence, and real Celery that is loaded already is an error."""
    program = """
from dream.compat import alias
alias.install()
alias.install()
import celery, dream.compat, celery.app.task
from celery import registry, shared_task
from celery.utils.log import get_task_logger
print(celery is dream.compat, celery.app.task.Task is dream.compat.Task, dream.compat.__spec__.name)
for name in ("celery.beat", "celery.backends.database", "celery.nothing"):
    try:
        __import__(name)
    except ImportError as error:
        print(str(error).partition(":")[0])
"""
    assert run(WORKER.parents[2], program) == [
        "True True dream.compat",
        "celery.beat is not there",
        "celery.backends.database is not there",
        "dream.compat has no celery.nothing",
    ]
    late = (
        "import celery\nfrom dream.compat import alias\ntry:\n    alias.install()\nexcept Exception as e:\n    print(e)"
    )
    assert run(WORKER.parents[2], late) == [
        "celery has been imported already: call dream.compat.alias.install() before that"
    ]


def test_a_retrys_words_have_whole_seconds() -> None:
    assert [str(Retry(when=when)) for when in (60, 60.0, 202.5, 0.5, 12345678.0)] == [
        f"Retry in {each}s" for each in ("60", "60", "203", "0.5", "12345678")
    ]
