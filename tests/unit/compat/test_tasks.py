"""Tasks of a caller's own, run here and now: what they see, how they are retried, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import dream.compat
from dream.compat import Celery, Task, current_app, current_task, shared_task, signals
from dream.compat.app.publishing import envelope_of
from dream.compat.app.retrying import backoff_s
from dream.compat.exceptions import (
    EncodeError,
    Ignore,
    ImproperlyConfigured,
    MaxRetriesExceededError,
    Retry,
    Unsupported,
)
from dream.errors import InvalidArguments


@pytest.fixture
def app() -> Celery:
    return Celery("shop", task_always_eager=True)


def test_a_bound_task_sees_its_run_and_none_outside_of_it(app: Celery) -> None:
    @app.task(bind=True)
    def look(self: Any, *args: Any) -> Any:
        return self.request.id, self.request.retries, self.request.args, self.request.is_eager, current_task.name

    task_id, *rest = look.apply((1, 2), task_id="a1").get()
    assert (task_id, rest) == ("a1", [0, (1, 2), True, look.name])
    assert look.request.called_directly
    assert look(1)[0] is None


def test_a_request_can_be_pushed_as_tests_do(app: Celery) -> None:
    task = app.task(name="shop.task")(print)
    task.push_request({"retries": 3}, id="t", args=(1,), kwargs={}, called_directly=False)
    try:
        assert (task.request.id, task.request.retries) == ("t", 3)
        task.request.update(timelimit=[30, 20])
        assert (task.request.time_limit, task.request.soft_time_limit) == (30, 20)
        with pytest.raises(Retry) as caught:
            task.retry(countdown=1)
        assert (caught.value.sig.args, caught.value.sig.retries) == ([1], 4)
    finally:
        task.pop_request()
    assert task.request.id is None


def test_hooks_and_signals_of_a_retry_are_celerys(app: Celery) -> None:
    """`after_return` comes once, behind the last run; who hears of the retry gets the `Retry`."""
    heard: list[Any] = []

    class Noting(Task):
        def on_retry(self, exc: Any, *_: Any) -> None:
            heard.append(("on_retry", exc))

        def after_return(self, status: str, *_: Any) -> None:
            heard.append(("after_return", status))

    @app.task(bind=True, base=Noting, max_retries=1)
    def once_more(self: Any) -> str:
        return "done" if self.request.retries else self.retry()

    def hear(reason: Any, **_: Any) -> None:
        heard.append(("task_retry", type(reason)))

    def succeed(runtime: float, **_: Any) -> None:
        heard.append(("task_success", runtime >= 0))

    signals.task_retry.connect(hear, sender=once_more)
    signals.task_success.connect(succeed, sender=once_more)
    assert once_more.apply().get() == "done"
    last = [("task_success", True), ("after_return", "SUCCESS")]
    assert heard == [("on_retry", None), ("task_retry", Retry), *last]


@pytest.mark.parametrize(("most", "runs"), [(0, 1), (1, 2), (5, 6)])
def test_max_retries_is_that_many_runs_and_one(app: Celery, most: int, runs: int) -> None:
    seen: list[tuple[Any, int]] = []

    @app.task(bind=True, max_retries=most)
    def fail(self: Any) -> None:
        seen.append((self.request.id, self.request.retries))
        raise self.retry(exc=KeyError("gone"))

    result = fail.delay()
    assert (result.state, repr(result.result)) == ("FAILURE", "KeyError('gone')")
    assert seen == [(result.id, number) for number in range(runs)]


def test_a_retry_that_is_returned_and_not_raised_runs_in_place_too(app: Celery) -> None:
    @app.task(name="shop.returns", bind=True, max_retries=3)
    def returns(self: Task) -> object:
        return 42 if self.request.retries == 3 else self.retry(exc=LookupError(), throw=False)

    assert returns.apply().get() == 42


def test_without_an_error_of_its_own_the_last_retry_says_so(app: Celery) -> None:
    @app.task(bind=True, max_retries=0)
    def fail(self: Any) -> None:
        self.retry()

    with pytest.raises(MaxRetriesExceededError, match=r"fail\[.*max_retries=0"):
        fail.delay().get()


def test_errors_of_autoretry_for_retry_and_others_do_not(app: Celery) -> None:
    runs: list[type[Exception]] = []

    @app.task(autoretry_for=(LookupError,), dont_autoretry_for=(IndexError,), max_retries=1)
    def fail(kind: type[Exception]) -> None:
        runs.append(kind)
        raise kind("no")

    for kind in (KeyError, IndexError, ValueError):
        assert fail.delay(kind).failed()
    assert runs == [KeyError, KeyError, IndexError, ValueError]


def test_a_retry_may_change_arguments_by_name(app: Celery) -> None:
    @app.task(bind=True)
    def grow(self: Any, size: int, colour: str) -> Any:
        if size < 2:
            raise self.retry(kwargs={"size": size + 1})
        return size, colour

    assert grow.delay(1, "red").get() == (2, "red")


def test_a_retrys_names_take_the_places_that_arguments_had(app: Celery) -> None:
    """Those behind them stay where they are, and a parameter that has no name keeps its own."""

    @app.task(bind=True)
    def take(self: Any, size: int, /, colour: str, *rest: int, **more: Any) -> Any:
        if not self.request.retries:
            raise self.retry(kwargs={"colour": "blue", "size": 7})
        return size, colour, rest, more

    @app.task(bind=True)
    def paint(self: Any, size: int, colour: str = "red") -> Any:
        if not self.request.retries:
            raise self.retry(args=(size + 1,))
        return size, colour

    assert take.delay(1, "red", 3, 4).get() == (1, "blue", (3, 4), {"size": 7})
    assert paint.delay(size=1, colour="blue").get() == (2, "blue")


def test_a_run_in_place_is_shown_its_time_limits() -> None:
    eager = Celery("shop", task_always_eager=True, task_time_limit=30)

    @eager.task(bind=True, soft_time_limit=20)
    def limits(self: Any) -> Any:
        return self.request.time_limit, self.request.soft_time_limit

    assert limits.delay().get() == limits.apply(propagate=True).get() == (30, 20)


def test_an_app_may_leave_arguments_to_the_run() -> None:
    app = Celery("shop", task_always_eager=True, strict_typing=False)
    assert app.task(name="shop.add")(lambda x, y: x + y).delay(1).failed()
    with pytest.raises(TypeError):
        app.task(name="shop.sub", typing=True)(lambda x, y: x - y).delay(1)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({}, (5, 60)), ({"autoretry_for": (KeyError,)}, (5, 60)), ({"retry_backoff": True}, (3, 180))],
    ids=["the policy", "the policy for some errors", "Celery's"],
)
def test_a_task_that_sets_numbers_gets_celerys_and_others_the_policy(options: Any, numbers: Any) -> None:
    task = Celery("shop").task(name="shop.t", **options)(lambda: None)
    assert (task.max_retries, task.default_retry_delay) == numbers


def test_back_off_is_celerys() -> None:
    """Factor × 2ⁿ up to the most; with jitter anything from 0 to that."""
    assert [backoff_s(3, retries, 20, jitter=False) for retries in range(5)] == [3, 6, 12, 20, 20]
    assert {backoff_s(1, 1, 20, jitter=True) for _ in range(200)} == {0, 1, 2}


def test_endless_retries_need_a_pause(app: Celery) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"shop\.t: max_retries=None.*not 0\.5"):
        app.task(name="shop.t", max_retries=None, default_retry_delay=0.5)(lambda: None)

    @app.task(bind=True, max_retries=None)
    def fail(self: Any) -> None:
        raise self.retry(countdown=0)

    with pytest.raises(ImproperlyConfigured, match="countdown=0"):
        fail.delay().get()


def test_ignored_runs_leave_nothing_and_propagated_errors_come_at_once(app: Celery) -> None:
    @app.task
    def ignore() -> None:
        raise Ignore

    @app.task
    def fail() -> None:
        raise KeyError("x")

    assert ignore.delay().state == "PENDING"
    app.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        fail.delay()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_goes_through_a_run_in_place(app: Celery, kind: type[BaseException]) -> None:
    """As in Celery: in the caller's process it may be meant for that, such as Ctrl-C."""

    @app.task
    def leave() -> None:
        raise kind

    with pytest.raises(kind):
        leave.delay()
    assert not current_task


def test_links_follow_the_end(app: Celery) -> None:
    seen: list[Any] = []
    add = app.task(name="add")(lambda x, y: x + y)
    app.task(name="keep")(lambda *given: seen.append(given))
    app.task(name="explain")(lambda request, error, _traceback: seen.append((request.id, repr(error))))
    app.task(name="fail")(lambda: {}["gone"])
    add.apply_async((1, 2), link=[app.tasks["keep"].s("after"), app.tasks["keep"].si("alone")])
    app.tasks["fail"].apply_async(task_id="f1", link_error=app.tasks["explain"].s())
    assert seen == [(3, "after"), ("alone",), ("f1", "KeyError('gone')")]


def test_a_shared_task_is_that_of_the_current_app() -> None:
    @shared_task(name="shared.twice")
    def twice(x: int) -> int:
        return 2 * x

    first, second = Celery("first"), Celery("second")
    assert (twice.app, current_app.main, twice(4)) == (second, "second", 8)
    first.set_current()
    assert twice.app is first
    assert isinstance(twice, dream.compat.Task)


def test_what_json_cannot_carry_fails_at_the_call() -> None:
    own = Celery("shop")
    task = own.task(name="shop.keep")(lambda x: x)
    with pytest.raises(EncodeError, match=r"shop\.keep: JSON cannot carry object"):
        task.delay(object())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": "red"}, "'colour' is not supported"),
        ({"expiration": 5}, "'expiration' is not supported: set expires"),
        ({"chord": {}}, r"'chord' is not supported: .*dramatiq\.group"),
        ({"queue": "a b"}, "queue must begin with a letter"),
        ({"serializer": "pickle"}, "serializer must be 'json'"),
        ({"countdown": "soon"}, "countdown must be a number of seconds"),
        ({"expires": "soon"}, "expires must be a time"),
        ({"headers": 5}, "headers must be a dict"),
        ({"time_limit": 1, "soft_time_limit": 2}, "soft_time_limit must be less than or equal to time_limit"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    own = Celery("shop")
    task = own.task(name="shop.t")(lambda: None)
    with pytest.raises(InvalidArguments, match=said):
        task.apply_async(**options)


def test_the_call_goes_before_the_definition_and_that_before_the_route() -> None:
    own = Celery("shop", task_routes={"shop.*": "routed"}, task_default_queue="other", task_default_priority=3)
    plain = own.task(name="shop.plain")(lambda: None)
    placed = own.task(name="shop.placed", queue="placed", expires=60)(lambda: None)

    def queue(task: Any, **options: Any) -> str:
        return envelope_of(own, task.name, (), {}, options, task).queue

    assert [queue(plain), queue(placed), queue(placed, queue="named")] == ["routed", "placed", "named"]
    assert envelope_of(own, "mail.send", (), {}, {}).queue == "other"
    envelope = envelope_of(own, placed.name, (), {}, {}, placed)
    assert envelope.expires is not None
    assert envelope.priority == 3


def test_work_flows_are_refused_with_what_to_use() -> None:
    task = Celery("shop").task(name="shop.t")(lambda: None)
    refused = {
        "chain": lambda: task.s() | task.s(),
        "group": lambda: dream.compat.group([task.s()]),
        "chord": lambda: dream.compat.chord([task.s()]),
        "chunks": lambda: task.chunks([(1,)], 1),
        "starmap": lambda: task.starmap([(1,)]),
        "replace": lambda: task.replace(task.s()),
        "stamp": lambda: task.s().stamp(x=1),
    }
    for name, use in refused.items():
        with pytest.raises(Unsupported, match=rf"{name} is not supported: \w+"):
            use()
