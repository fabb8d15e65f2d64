"""Retries: the exact policy, errors that decide, Dramatiq's own rules beside it, and no retry lost on its way."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Broker, Message, MessageProxy, Retry
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Retries as StockRetries
from hypothesis import given
from hypothesis import strategies as st

from dream import errors
from dream.errors import DreamError, ImageRejected, LeaseLost, ObjectStoreUnavailable, RunContinues, WorkerStopping
from dream.settings import Settings
from dream.work.middleware.retries import Retries, RetryPolicy, is_permanent

POLICY = RetryPolicy()
NEWEST = -1


class ListBroker(Broker):
    """A broker that keeps what it is given, once its outages are over."""

    def __init__(self, middleware: dramatiq.Middleware, outages: Iterable[Exception] = ()) -> None:
        super().__init__(middleware=[middleware])
        self.outages = deque(outages)
        self.enqueued: list[tuple[Message[Any], float]] = []

    def declare_queue(self, queue_name: str) -> None:
        self.queues[queue_name] = None

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if self.outages:
            raise self.outages.popleft()
        self.enqueued.append((message, (delay or 0) / 1000))
        return message


class ListLedger:
    """A ledger that notes what it is told, and how many messages had gone out by then."""

    def __init__(self) -> None:
        self.broker: ListBroker | None = None
        self.entries: list[tuple[str, str, float | None, int]] = []
        self.judged = 0
        self.is_another_runs = False

    def _note(self, message: MessageProxy, exception: BaseException, delay_s: float | None) -> None:
        sent = len(self.broker.enqueued) if self.broker else 0
        self.entries.append((message.actor_name, type(exception).__name__, delay_s, sent))

    def will_retry(self, message: MessageProxy, exception: BaseException, delay_s: float) -> bool:
        self._note(message, exception, delay_s)
        return not self.is_another_runs

    def has_failed(self, message: MessageProxy, exception: BaseException) -> None:
        self._note(message, exception, None)

    def is_judged(self) -> None:
        self.judged += 1


def make(retries: StockRetries, outages: Iterable[Exception] = (), **actor_options: Any) -> ListBroker:
    """A broker with that middleware and the actor `work`."""
    broker = ListBroker(retries, outages)
    dramatiq.actor(actor_name="work", broker=broker, **actor_options)(lambda: None)
    return broker


def fail_once(broker: ListBroker, exception: BaseException, **options: Any) -> MessageProxy:
    """Let a run of `work` end with this exception."""
    message: Message[Any] = Message("default", "work", (), {}, options)
    proxy = MessageProxy(message)
    broker.middleware[0].after_process_message(broker, proxy, exception=exception)
    return proxy


def fail_until_the_end(broker: ListBroker, exception: BaseException, **options: Any) -> list[float]:
    """Let `work` fail again and again; returns the seconds before each retry."""
    while not fail_once(broker, exception, **options).failed:
        message, _ = broker.enqueued[NEWEST]
        options = message.options
    return [delay_s for _, delay_s in broker.enqueued]


# --- the policy


def test_the_policy_is_exactly_that_of_the_contract() -> None:
    assert [POLICY.delay_s(retries) for retries in range(5)] == [60, 90, 135, 202.5, 303.75]
    assert POLICY.max_retries == 5
    assert RetryPolicy.of(Settings()) == POLICY


@given(retries=st.integers(0, 300), jitter=st.floats(0, 1))
def test_a_delay_is_never_over_600_seconds(retries: int, jitter: float) -> None:
    """Not with jitter either, and never less than the exact delay."""
    delay_s = RetryPolicy(jitter=jitter).delay_s(retries)
    assert POLICY.delay_s(retries) <= delay_s <= 600


def test_a_task_that_always_fails_runs_six_times_at_these_times() -> None:
    """Given the policy, when every run fails, then the broker is told 60, 90, 135, 202.5 and 303.75 s, and no more."""
    delays = fail_until_the_end(make(Retries(policy=POLICY)), ObjectStoreUnavailable())
    assert delays == pytest.approx([60, 90, 135, 202.5, 303.75], abs=0.05)


def test_settings_change_the_policy() -> None:
    settings = Settings(max_retries=3, retry_first_s=1, retry_factor=10, retry_max_s=50)
    delays = fail_until_the_end(make(Retries(policy=RetryPolicy.of(settings))), ObjectStoreUnavailable())
    assert delays == pytest.approx([1, 10, 50], abs=0.05)


def test_without_retries_the_first_failure_is_the_last() -> None:
    broker = make(Retries(policy=RetryPolicy(max_retries=0)))
    assert fail_until_the_end(broker, ObjectStoreUnavailable()) == []


# --- which errors


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "Reason"])
def test_an_error_of_ours_decides_by_itself(name: str) -> None:
    error = getattr(errors, name)()
    assert is_permanent(error) is error.permanent


@pytest.mark.parametrize("exception", [OSError(), ValueError(), KeyError("x"), MemoryError()])
def test_an_error_of_others_may_be_helped(exception: Exception) -> None:
    assert not is_permanent(exception)


def test_a_wrong_call_is_as_wrong_the_next_time() -> None:
    assert is_permanent(TypeError("missing 1 required positional argument"))


@pytest.mark.parametrize("exception", [ImageRejected(), TypeError()])
def test_a_permanent_error_is_not_tried_again(exception: Exception) -> None:
    broker = make(Retries(policy=POLICY))
    assert fail_once(broker, exception).failed
    assert broker.enqueued == []


@pytest.mark.parametrize("exception", [None, LeaseLost(), WorkerStopping(), RunContinues()])
def test_success_and_what_is_handed_back_are_no_failures(exception: BaseException | None) -> None:
    ledger = ListLedger()
    broker = make(Retries(policy=POLICY, ledger=ledger))
    message = MessageProxy(Message("default", "work", (), {}, {}))
    broker.middleware[0].after_process_message(broker, message, exception=exception)
    assert not message.failed
    assert broker.enqueued == []
    assert ledger.entries == []


def test_a_task_that_is_another_runs_by_now_is_not_sent_again() -> None:
    ledger = ListLedger()
    ledger.is_another_runs = True
    broker = make(Retries(policy=POLICY, ledger=ledger))
    assert not fail_once(broker, ObjectStoreUnavailable()).failed
    assert broker.enqueued == []


# --- Dramatiq's own decisions stay


def test_an_error_that_the_actor_throws_is_not_tried_again() -> None:
    broker = make(Retries(policy=POLICY), throws=(DreamError,))
    assert fail_once(broker, ObjectStoreUnavailable()).failed


def test_an_error_may_say_its_own_delay() -> None:
    broker = make(Retries(policy=POLICY))
    fail_once(broker, Retry("later", delay=7000))
    assert broker.enqueued[0][1] == pytest.approx(7, abs=0.05)


@pytest.mark.parametrize("where", ["actor", "message"])
def test_max_retries_of_an_actor_or_a_message_goes_before_the_policy(where: str) -> None:
    actor_options: dict[str, Any] = {"max_retries": 2} if where == "actor" else {}
    options = {"max_retries": 2} if where == "message" else {}
    broker = make(Retries(policy=POLICY), **actor_options)
    assert fail_until_the_end(broker, ObjectStoreUnavailable(), **options) == pytest.approx([60, 90], abs=0.05)


def test_endless_retries_are_refused() -> None:
    broker = make(Retries(policy=POLICY), max_retries=None)
    assert len(fail_until_the_end(broker, ObjectStoreUnavailable())) == 5


def test_retry_when_of_an_actor_decides_alone() -> None:
    broker = make(Retries(policy=POLICY), retry_when=lambda retries, _: retries < 1)
    assert fail_until_the_end(broker, ImageRejected()) == pytest.approx([60], abs=0.05)


def test_a_back_off_of_an_actor_goes_before_the_policy() -> None:
    broker = make(Retries(policy=POLICY), min_backoff=1000, max_backoff=1000)
    fail_once(broker, ObjectStoreUnavailable())
    assert broker.enqueued[0][1] <= 1.0


def test_an_actor_may_be_told_when_nothing_is_left_to_try() -> None:
    broker = make(Retries(policy=RetryPolicy(max_retries=0)), on_retry_exhausted="tell")
    dramatiq.actor(actor_name="tell", broker=broker)(lambda *_: None)
    fail_once(broker, ObjectStoreUnavailable())
    [(message, _)] = broker.enqueued
    assert message.actor_name == "tell"


#: Options of an actor and of a message, as Dramatiq documents them.
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_retries": 3}, {"max_retries": 1}),
    ({"max_retries": 1, "max_backoff": 20}, {"min_backoff": 10}),
    ({"min_backoff": 10, "max_backoff": 40, "max_retries": 4}, {"max_backoff": 20}),
    ({"max_backoff": 10**12, "min_backoff": 10**11, "max_retries": 3}, {}),
    ({"retry_when": lambda retries, error: retries < 2 and isinstance(error, OSError)}, {"max_retries": 0}),
    ({"retry_when": None, "max_retries": 2}, {}),
    ({"throws": (ValueError,)}, {}),
    ({"throws": OSError}, {}),
]


@pytest.mark.parametrize(("of_actor", "of_message"), OPTIONS)
@pytest.mark.parametrize("exception", [OSError(), ValueError(), Retry("later", delay=7), Retry("later")])
def test_options_mean_what_they_mean_to_the_stock_middleware(
    of_actor: dict[str, Any], of_message: dict[str, Any], exception: Exception
) -> None:
    """Given the same options, when runs fail, then ours retries as often, and waits as long."""
    of_actor = {"max_retries": 5, **of_actor}
    random.seed(7)
    expected = fail_until_the_end(make(StockRetries(), **of_actor), exception, **of_message)
    random.seed(7)
    assert fail_until_the_end(make(Retries(), **of_actor), exception, **of_message) == pytest.approx(expected, abs=0.05)


def test_endless_retries_are_stocks_where_there_is_no_policy() -> None:
    broker = make(Retries(), max_retries=None)
    assert not fail_once(broker, OSError(), retries=10_000).failed


@pytest.mark.parametrize("retries", [StockRetries(), Retries(), Retries(policy=POLICY)])
def test_a_retry_carries_its_number_its_time_and_its_traceback(retries: StockRetries) -> None:
    broker = make(retries)
    began_ms = time.time() * 1000
    try:
        raise OSError("the disk is gone")
    except OSError as error:
        fail_once(broker, error, retries=1)
    [(message, _)] = broker.enqueued
    assert message.options["retries"] == 2
    assert message.options["traceback"].startswith("Traceback (most recent call last)")
    assert message.options["traceback"].endswith("OSError: the disk is gone\n")
    assert began_ms - 1 <= message.options["requeue_timestamp"] <= time.time() * 1000


@pytest.mark.parametrize("where", ["actor", "message"])
@pytest.mark.parametrize("retries", [StockRetries(max_retries=2), Retries(max_retries=2)])
def test_the_actor_of_last_resort_gets_the_message_and_the_numbers(retries: StockRetries, where: str) -> None:
    option = {"on_retry_exhausted": "tell"}
    broker = make(retries, **(option if where == "actor" else {}))
    dramatiq.actor(actor_name="tell", broker=broker)(lambda *_: None)
    failed = fail_once(broker, OSError(), retries=2, **(option if where == "message" else {}))
    [(message, _)] = broker.enqueued
    assert message.actor_name == "tell"
    told, numbers = message.args
    assert told["message_id"] == failed.message_id
    assert numbers == {"retries": 2, "max_retries": 2}


@pytest.mark.parametrize("retries", [StockRetries(retry_when=lambda *_: False), Retries(retry_when=lambda *_: False)])
def test_retry_when_of_the_middleware_holds_for_every_actor(retries: StockRetries) -> None:
    assert fail_once(make(retries), OSError()).failed


@pytest.mark.parametrize("stock", [{}, {"max_retries": 2}, {"min_backoff": 100, "max_backoff": 5000, "max_retries": 7}])
@pytest.mark.parametrize("exception", [OSError(), TypeError(), ImageRejected()])
def test_without_a_policy_it_is_the_stock_middleware(stock: dict[str, Any], exception: Exception) -> None:
    """Built as Dramatiq builds its own, it decides the same and waits as long."""
    random.seed(7)
    expected = fail_until_the_end(make(StockRetries(**stock)), exception)
    random.seed(7)
    assert fail_until_the_end(make(Retries(**stock)), exception) == pytest.approx(expected, abs=0.05)


# --- the ledger


def test_the_ledger_hears_of_a_retry_before_the_broker() -> None:
    ledger = ListLedger()
    broker = ledger.broker = make(Retries(policy=POLICY, ledger=ledger))
    fail_once(broker, ObjectStoreUnavailable())
    assert ledger.entries == [("work", "ObjectStoreUnavailable", 60.0, 0)]
    assert len(broker.enqueued) == 1


def test_the_ledger_hears_of_the_final_failure_once() -> None:
    ledger = ListLedger()
    fail_until_the_end(make(Retries(policy=RetryPolicy(max_retries=1), ledger=ledger)), ObjectStoreUnavailable())
    assert [delay_s for _, _, delay_s, _ in ledger.entries] == [60.0, None]


@pytest.mark.parametrize("exception", [ImageRejected(), TypeError()])
def test_the_ledger_hears_of_a_permanent_failure_once(exception: Exception) -> None:
    ledger = ListLedger()
    fail_once(make(Retries(policy=POLICY, ledger=ledger)), exception)
    assert ledger.entries == [("work", type(exception).__name__, None, 0)]


# --- outages

CLOSED = ConnectionClosed("gone")  # type: ignore[no-untyped-call]
AWAY = [redis.ConnectionError(), redis.TimeoutError(), CLOSED, ConnectionRefusedError()]


@pytest.mark.parametrize("outage", AWAY, ids=lambda outage: type(outage).__name__)
def test_a_retry_waits_for_a_broker_that_is_away(outage: Exception) -> None:
    """Then the message goes out, once, and is still due at its time."""
    broker = make(Retries(policy=RetryPolicy(first_s=5)), [outage])
    message = fail_once(broker, ObjectStoreUnavailable())
    assert not message.failed
    [(_, delay_s)] = broker.enqueued
    assert 4 < delay_s <= 5 - 0.1, "the time of the outage counts as waiting"


def test_a_retry_whose_time_comes_during_the_outage_goes_out_at_once() -> None:
    broker = make(Retries(policy=RetryPolicy(first_s=0.05)), [redis.ConnectionError()])
    fail_once(broker, ObjectStoreUnavailable())
    assert broker.enqueued[0][1] == 0


def test_a_message_is_failed_rather_than_lost_when_the_outage_does_not_end() -> None:
    ledger = ListLedger()
    retries = Retries(policy=POLICY, ledger=ledger, enqueue_patience_s=0.1)
    broker = make(retries, [redis.ConnectionError() for _ in range(100)])
    assert fail_once(broker, ObjectStoreUnavailable()).failed
    assert broker.enqueued == []
    assert len(broker.outages) < 100


def test_a_fault_that_is_no_outage_is_not_swallowed() -> None:
    broker = make(Retries(policy=POLICY), [KeyError("a bug")])
    with pytest.raises(KeyError):
        fail_once(broker, ObjectStoreUnavailable())


def test_the_ledger_hears_that_a_run_is_over_whatever_happens() -> None:
    """A run whose end nobody noted would have its lease renewed for ever."""
    ledger = ListLedger()
    broker = make(Retries(policy=POLICY, ledger=ledger), [KeyError("a bug")])
    with pytest.raises(KeyError):
        fail_once(broker, ObjectStoreUnavailable())
    fail_once(broker, ImageRejected())
    assert ledger.judged == 2
