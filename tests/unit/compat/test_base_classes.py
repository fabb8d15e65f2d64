"""Base classes of tasks: their `__call__` runs around every run, and where an app gets its base class from."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import celery
import pytest

import dream.compat
from dream.compat import Celery, Task, shared_task
from dream.compat.exceptions import ImproperlyConfigured, Retry

#: What runs noted, in their order.
noted: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    noted.clear()


class Noting(Task):
    """Notes its calls, and which run it sees."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        noted.append(("in", self.request.id, args))
        try:
            return self.run(*args, **kwargs)
        finally:
            noted.append(("out", self.request.id))


class Calling(Noting):
    """As Flask's documentation has it, and once more around another."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        noted.append("outer")
        return super().__call__(*args, **kwargs)


class Stock(Task):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        noted.append("super")
        return super().__call__(*args, **kwargs)


def test_a_run_goes_through_the_base_class_and_shows_it_the_request() -> None:
    app = Celery("shop", task_always_eager=True)

    @app.task(bind=True, base=Calling)
    def double(self: Any, x: int) -> Any:
        noted.append(("run", self.request.id))
        return 2 * x

    assert double.apply_async((4,), task_id="t1").get() == 8
    assert noted == ["outer", ("in", "t1", (4,)), ("run", "t1"), ("out", "t1")]


def test_the_stock_call_keeps_the_request_and_a_call_inside_the_run_is_direct() -> None:
    app = Celery("shop", task_always_eager=True)

    @app.task(bind=True, base=Stock)
    def count(self: Any, down: int) -> Any:
        noted.append((self.request.id, self.request.called_directly))
        return self(down - 1) if down else "counted"

    assert count.apply_async((1,), task_id="t1").get() == "counted"
    assert noted == ["super", ("t1", False), "super", (None, True)]


def test_a_base_class_may_run_its_task_again() -> None:
    """The second time is the same run."""
    app = Celery("shop", task_always_eager=True)

    class Stubborn(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            for _ in range(2):
                try:
                    return super().__call__(*args, **kwargs)
                except ConnectionError:
                    noted.append("again")
            return None

    @app.task(bind=True, base=Stubborn)
    def fetch(self: Any) -> Any:
        if "again" not in noted:
            raise ConnectionError
        return self.request.id

    assert fetch.apply_async(task_id="t1").get() == "t1"


def test_a_retry_of_the_base_class_runs_again() -> None:
    app = Celery("shop", task_always_eager=True)

    class Waiting(Task):
        max_retries = 3

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if self.request.retries < 2:
                raise self.retry(countdown=1)
            return self.run(*args, **kwargs)

    assert app.task(base=Waiting, name="shop.wait")(lambda x: x + 1).delay(1).get() == 2


def test_an_error_of_the_base_class_is_the_tasks_and_autoretry_is_for_its_run_alone() -> None:
    """As in Celery, which wraps `run`."""
    app = Celery("shop", task_always_eager=True)
    runs: list[str] = []

    class Raising(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if args == ("early",):
                raise KeyError("early")
            return self.run(*args, **kwargs)

    @app.task(base=Raising, autoretry_for=(KeyError,), max_retries=1)
    def fail(kind: str) -> None:
        runs.append(kind)
        raise KeyError(kind)

    assert [repr(fail.delay(kind).result) for kind in ("early", "late")] == ["KeyError('early')", "KeyError('late')"]
    assert runs == ["late", "late"]


def test_a_registered_class_and_a_shared_task_have_a_base_too() -> None:
    app = Celery("shop", task_always_eager=True)

    class Add(Noting):
        name = "shop.add"

        def run(self, x: int, y: int) -> int:
            return x + y

    @shared_task(base=Noting)
    def share(x: int) -> int:
        return x

    assert (app.register_task(Add).delay(1, 2).get(), share.delay(5).get()) == (3, 5)
    assert [each[2] for each in noted if each[0] == "in"] == [(1, 2), (5,)]


def test_models_are_made_behind_the_base_class_and_in_a_direct_call() -> None:
    from pydantic import BaseModel

    class Price(BaseModel):
        cents: int

    def raised(price: Price) -> Price:
        return Price(cents=price.cents + 1)

    raised.__annotations__ = {"price": Price, "return": Price}
    app = Celery("shop", task_always_eager=True)
    task = app.task(base=Noting, name="shop.raise", pydantic=True)(raised)
    assert task.delay(Price(cents=1)).get() == task({"cents": 1}) == {"cents": 2}
    assert len(noted) == 4


PROGRAM = """
class Told(Base):
    def before_start(self, *_): said.append("before_start")
    def __call__(self, *args, **kwargs):
        said.append(("call", self.request.retries))
        return self.run(*args, **kwargs)
    def on_success(self, retval, *_): said.append(("on_success", retval))
    def on_failure(self, exc, *_): said.append(("on_failure", repr(exc)))
    def on_retry(self, exc, *_): said.append(("on_retry", repr(exc)))
    def after_return(self, status, *_): said.append(("after_return", status))

@app.task(bind=True, base=Told, max_retries=1, default_retry_delay=1, name="told.run")
def run(self, how):
    if how == "retry" and not self.request.retries:
        raise self.retry(exc=KeyError("x"))
    if how == "fail":
        raise ValueError("x")
    return how

def listen(name):
    def hear(**_): said.append(name)
    getattr(signals, name).connect(hear, sender=run, weak=False)

for name in ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"):
    listen(name)
run.apply((how,))
"""


@pytest.mark.parametrize("how", ["fine", "fail", "retry"])
def test_hooks_and_signals_come_in_celerys_order(how: str) -> None:
    """But of runs that retry each other in place: Celery nests the second in the first."""

    def said_by(module: Any, app: Any) -> list[Any]:
        said: list[Any] = []
        exec(PROGRAM, {"Base": app.Task, "app": app, "signals": module.signals, "said": said, "how": how})  # noqa: S102
        return said

    from celery import signals  # noqa: F401 (so that `celery.signals` is there)

    theirs = said_by(celery, celery.Celery("theirs", set_as_current=False))
    ours = said_by(dream.compat, Celery("ours"))
    if how == "retry":
        assert sorted(map(str, ours)) == sorted(map(str, theirs))
    else:
        assert ours == theirs


# --- where an app gets its base class from


def test_an_app_is_given_its_base_class_or_names_it(shop: Path) -> None:
    (shop / "bases.py").write_text(
        "from dream.compat import Task\n"
        "class Base(Task):\n    def __call__(self, *args):\n        return ['base', self.run(*args)]\n"
    )

    class Ours(Celery):
        task_cls = "shop.bases.Base"

    named = [Celery("shop", task_cls=name) for name in ("shop.bases:Base", "shop.bases.Base")]
    classes = importlib.import_module("shop.bases")
    for app in (*named, Ours("shop"), Celery("shop", task_cls=classes.Base)):
        assert app.task(name="shop.echo")(lambda x: x).apply((1,)).get() == ["base", 1]
        assert issubclass(app.Task, classes.Base)


def test_a_base_class_that_is_named_is_imported_once_a_task_is_used(shop: Path) -> None:
    """Its module may import the app's, as in Celery, whose tasks are made when somebody looks at one."""
    (shop / "celery.py").write_text(
        "from dream.compat import Celery\n"
        "app = Celery('shop', task_cls='shop.bases:Base', task_always_eager=True)\n"
        "@app.task(bind=True)\ndef debug(self, x):\n    return x\n"
    )
    (shop / "bases.py").write_text(
        "from dream.compat import Task\nfrom shop.celery import app, debug\n"
        "class Base(Task):\n    def __call__(self, *args):\n        return [app.main, self.run(*args)]\n"
    )
    module = importlib.import_module("shop.celery")
    assert module.debug.delay(3).get() == ["shop", 3]
    assert module.debug(3) == ["shop", 3]
    assert module.app.tasks["shop.celery.debug"] is module.debug


@pytest.mark.parametrize("first", ["called", "looked at"])
def test_the_first_use_of_a_task_may_be_any(shop: Path, first: str) -> None:
    (shop / "bases.py").write_text(
        "from dream.compat import Task\nclass Base(Task):\n    queue = 'slow'\n"
        "    def __call__(self, *args):\n        return ['base', self.run(*args)]\n"
    )
    task = Celery("shop", task_cls="shop.bases:Base").task(name="shop.echo")(lambda x: x)
    if first == "called":
        assert task(1) == ["base", 1]
    assert task.queue == "slow"


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_base_class_that_is_set_on_an_app_is_that_of_all_its_tasks(when: str) -> None:
    """Also of those defined before, as long as they name no other: application factories come behind them."""
    app = Celery("shop", task_always_eager=True)

    class Ready(app.Task):  # type: ignore[name-defined, misc]
        abstract = True

        def __init__(self) -> None:
            self.is_ready = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["ready", self.is_ready, self.run(*args, **kwargs)]

    if when == "before":
        app.Task = Ready
    tries: list[int] = []

    @app.task(autoretry_for=(KeyError,), max_retries=1)
    def plain(x: int) -> int:
        tries.append(x)
        if len(tries) < 2:
            raise KeyError(x)
        return x

    @shared_task
    def shared() -> int:
        return 1

    assert shared.name in app.tasks
    other = app.task(name="shop.other", base=Task)(lambda: 2)
    app.Task = Ready
    assert plain.delay(1).get() == ["ready", True, 1]
    assert (tries, isinstance(plain, Ready)) == ([1, 1], True)
    assert (shared.delay().get(), other.delay().get()) == (["ready", True, 1], 2)


@pytest.mark.parametrize("wrong", [dict, 5, "dream.compat:Celery", "dream.compat:nothing", "nobody.has:this"])
def test_what_is_no_class_of_tasks_is_refused(wrong: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"task_cls must be a subclass|no such module|has no 'nothing'"):
        _ = Celery("shop", task_cls=wrong).Task


def test_a_base_that_is_no_class_of_tasks_is_refused_where_it_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"shop\.t: base must be a subclass of dream\.compat\.Task"):
        Celery("shop").task(name="shop.t", base=celery.Task)(lambda: None)


def test_a_base_class_may_keep_a_signature_of_its_own() -> None:
    """Celery Once does so in `__init__`."""
    import inspect

    class Keeping(Task):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._signature = inspect.signature(self.run)
            super().__init__(*args, **kwargs)

    task = Celery("shop", task_always_eager=True).task(base=Keeping, name="shop.keep")(lambda x: x)
    assert task.delay(1).get() == 1
    with pytest.raises(TypeError, match="missing a required argument"):
        task.delay()


def test_a_base_class_hears_which_app_has_its_tasks() -> None:
    class Bound(Task):
        @classmethod
        def on_bound(cls, app: Any) -> None:
            noted.append((cls.__name__, app.main))

    app = Celery("shop")
    app.task(base=Bound, name="shop.first")(print)
    app.task(name="shop.second")(len)
    app.Task = Bound
    assert noted == [("print", "shop"), ("len", "shop")]


def test_a_header_does_not_replace_what_a_run_needs() -> None:
    app = Celery("shop", task_always_eager=True)

    @app.task(bind=True, base=Stock, max_retries=1)
    def look(self: Any) -> Any:
        if not self.request.retries:
            raise self.retry(exc=Retry())
        return self.request.children

    headers = {"children": 5, "is_calling": 7, "delivered": 1, "envelope": 2, "most_retries": 0}
    assert look.apply_async(headers=headers).get() == []
