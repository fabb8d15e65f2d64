"""Runs of callers' tasks in a real worker process: through their base classes, and to an end whatever they raise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dream.compat import Celery
from tests.conftest import environment_in, prepare, settings_from
from tests.processes import WORKER, Parts
from tests.this_process import configured

APP = """
import contextvars
from dream.compat import Celery, Task, shared_task

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
"""


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
