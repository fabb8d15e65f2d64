"""Celery's smaller modules: what callers import from them is there."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dream.compat import AsyncResult, Celery, Task, states
from dream.compat.app.context import Context
from dream.compat.envelope import Envelope
from dream.compat.exceptions import Unsupported
from dream.compat.utils.log import get_task_logger
from dream.compat.worker.request import Request


def test_they_are_there() -> None:
    app = Celery("shop")
    state, django = import_module("dream.compat._state"), import_module("dream.compat.contrib.django.task")
    assert (state.get_current_task(), state.get_current_app()) == (None, state.current_app)
    assert hasattr(django.DjangoTask, "delay_on_commit")
    assert import_module("dream.compat.app").app_or_default(app) is app
    assert import_module("dream.compat.app.control").Control is type(app.control)


def test_small_helpers_are_there() -> None:
    """django-celery-beat's admin imports one, django-celery-results' views the other."""
    helpers, signal = import_module("dream.compat.utils"), import_module("dream.compat.utils.dispatch").Signal
    assert helpers.get_full_cls_name(Celery) == "dream.compat.app.base.Celery"

    class Priced:
        @helpers.cached_property  # type: ignore[untyped-decorator]
        def price(self) -> object:
            return object()

    priced = Priced()
    assert priced.price is priced.price
    heard = []
    of_the_shop = signal(name="sold", providing_args={"price"})
    of_the_shop.connect(lambda price, **_: heard.append(price), weak=False)
    of_the_shop.send(sender=None, price=3)
    assert heard == [3]
    assert import_module("dream.compat").__version__.startswith("5.")


def test_a_tasks_logger_is_an_ordinary_one_of_its_name() -> None:
    assert get_task_logger("shop.tasks") is logging.getLogger("shop.tasks")


def test_states_are_compared_by_what_follows_what() -> None:
    state = states.state
    assert state("PENDING") < state("STARTED") < state("SUCCESS")
    assert state("STARTED") <= state("PROGRESS") < state("FAILURE")
    assert not state("SUCCESS") < state("RETRY")


def test_names_that_libraries_import_are_there() -> None:
    """Each stopped a whole library at its import."""
    app = Celery("shop")
    task = app.task(name="shop.task")(print)
    assert import_module("dream.compat.registry").tasks.get("shop.task") is task
    assert import_module("dream.compat.registry").tasks.get("nobody.knows") is None
    base, request = import_module("dream.compat.backends.base"), import_module("dream.compat.worker.request")
    assert not isinstance(app.backend, base.DisabledBackend)
    assert "SUCCESS" in base.DisabledBackend.READY_STATES
    assert issubclass(request.Request, Context)
    results = import_module("dream.compat.result")
    assert isinstance(AsyncResult("a"), results.ResultBase)
    assert not isinstance(AsyncResult("a"), results.GroupResult)
    assert task._get_app() is app
    for use in (results.GroupResult, lambda: results.GroupResult.restore("g"), lambda: results.ResultSet([])):
        with pytest.raises(Unsupported, match="is not supported: keep "):
            use()


def test_a_request_of_a_signal_has_the_names_of_a_workers() -> None:
    envelope = Envelope(task="shop.add", id="a1", args=(1,), headers={"traceparent": "00-1"})
    request = Request.of(Context(envelope, hostname="w1@host"))
    assert (request.task_id, request.name, request.task_name) == ("a1", "shop.add", "shop.add")
    assert request.get("traceparent") == "00-1"
    said = request._request_dict
    assert (said["task"], said["id"], said["args"], said["traceparent"]) == ("shop.add", "a1", [1], "00-1")
    assert request.info()["hostname"] == "w1@host"


def test_a_propertys_own_error_is_not_hidden() -> None:
    """It was told as if the property were not there."""

    class Shop(Celery):
        @property
        def prices(self) -> object:
            return self.conf.no_such_setting

    class Priced(Task):
        @property
        def price(self) -> object:
            return None.amount  # type: ignore[attr-defined]

    class Shown(AsyncResult):
        @property
        def shown(self) -> object:
            return self.no_such_attribute

    app = Shop("shop")
    task = app.task(name="shop.priced", base=Priced)(print)
    for use, said in (
        (lambda: app.prices, "no_such_setting is not set"),
        (lambda: task.price, "'NoneType' object has no attribute 'amount'"),
        (lambda: Shown("a").shown, "Shown has no attribute 'no_such_attribute'"),
    ):
        with pytest.raises(AttributeError, match=re.escape(said)):
            use()
    assert not hasattr(task, "no_such_attribute")


UTC_NOON, NAIVE_NOON, BERLIN = datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 1, 12), ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *[("humanize_seconds", (each,)) for each in (0, 0.5, 1, 59.999, 60, 90, 3600, 7200, 86400, 200000)],
        ("humanize_seconds", (90, "in", " ")),
        ("humanize_seconds", (0.5, "", "", "now", True)),
        *[("rate", (each,)) for each in ("10/m", "0.5/s", "2/h", "3", 5, 0, None, "")],
        *[("weekday", (each,)) for each in ("sun", "Monday", "SAT")],
        *[("maybe_timedelta", (each,)) for each in (30, 1.5, timedelta(1), None)],
        *[("maybe_iso8601", (each,)) for each in ("2026-07-01T12:00:00+00:00", UTC_NOON, None)],
        *[("maybe_make_aware", (each, *more)) for each in (UTC_NOON, NAIVE_NOON) for more in ((), (BERLIN,))],
        ("maybe_make_aware", (NAIVE_NOON, BERLIN, False)),
        *[(name, (NAIVE_NOON, BERLIN)) for name in ("make_aware", "localize")],
        ("localize", (UTC_NOON, BERLIN)),
        ("to_utc", (NAIVE_NOON,)),
        *[("is_naive", (each,)) for each in (UTC_NOON, NAIVE_NOON)],
        *[("get_exponential_backoff_interval", (2, each, 60)) for each in (0, 3, 9)],
    ],
)
def test_times_are_as_celery_says_them(name: str, arguments: tuple[Any, ...]) -> None:
    ours, theirs = (getattr(import_module(f"{root}.utils.time"), name) for root in ("dream.compat", "celery"))
    assert ours(*arguments) == theirs(*arguments)
