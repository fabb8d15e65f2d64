"""The time limit: code that runs Python is stopped, and a thread that cannot be stopped is noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import TimeLimitExceeded

from dream.work.middleware import time_limit
from dream.work.middleware.time_limit import TimeLimit


class Harness:
    """Runs one actor under the middleware, as a worker would: hooks around a call, in a thread."""

    def __init__(self, limit: TimeLimit, **actor_options: Any) -> None:
        self.limit = limit
        self.broker = StubBroker(middleware=[limit])
        dramatiq.actor(actor_name="work", broker=self.broker, **actor_options)(lambda: None)
        self.broker.emit_after("process_boot")

    def run(self, work: Callable[[], object], **options: Any) -> BaseException | None:
        """The end of the run."""
        ended_with: list[BaseException | None] = []

        def thread() -> None:
            message = MessageProxy(Message("default", "work", (), {}, options))
            self.limit.before_process_message(self.broker, message)
            outcome = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (an interrupt is none of Exception)
                outcome = error
            finally:
                self.limit.after_process_message(self.broker, message, exception=outcome)
            ended_with.append(outcome)

        runner = threading.Thread(target=thread)
        runner.start()
        runner.join(20)
        assert not runner.is_alive()
        return ended_with[0]


def spin() -> None:
    """Python that never ends by itself (but does, should the limit be broken)."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        pass


def test_code_that_goes_on_past_its_limit_is_stopped() -> None:
    harness = Harness(TimeLimit(time_limit=100, interval=10))
    started = time.monotonic()
    assert isinstance(harness.run(spin), TimeLimitExceeded)
    assert time.monotonic() - started < 5


def test_code_within_its_limit_is_left_alone() -> None:
    assert Harness(TimeLimit(time_limit=60_000, interval=10)).run(lambda: sum(range(1000))) is None


@pytest.mark.parametrize("where", ["actor", "message"])
def test_an_actor_or_a_message_may_have_a_limit_of_its_own(where: str) -> None:
    actor_options = {"time_limit": 100} if where == "actor" else {}
    options = {"time_limit": 100} if where == "message" else {}
    harness = Harness(TimeLimit(time_limit=60_000, interval=10), **actor_options)
    assert isinstance(harness.run(spin, **options), TimeLimitExceeded)


def test_built_as_dramatiq_builds_its_own_it_has_the_stock_limit() -> None:
    assert TimeLimit().time_limit == 600_000


def begin(limit: TimeLimit, **options: Any) -> tuple[StubBroker, MessageProxy]:
    """A run of this thread that has begun; nothing watches it, for this is the thread of the tests."""
    broker = StubBroker(middleware=[limit])
    dramatiq.actor(actor_name="work", broker=broker)(lambda: None)
    message = MessageProxy(Message("default", "work", (), {}, options))
    limit.before_process_message(broker, message)
    return broker, message


def test_a_thread_that_does_not_stop_is_noticed_10_seconds_later() -> None:
    """A limit that lies 10 s in the past stands for a thread that has blocked since then."""
    limit = TimeLimit()
    broker, message = begin(limit, time_limit=-time_limit.WEDGED_AFTER_S * 1000)
    assert limit.wedged() == {threading.get_ident()}
    limit.after_process_message(broker, message)
    assert not limit.wedged()


def test_a_thread_that_is_late_by_less_may_still_stop() -> None:
    limit = TimeLimit()
    begin(limit, time_limit=-(time_limit.WEDGED_AFTER_S - 5) * 1000)
    assert not limit.wedged()


def test_a_message_that_is_skipped_leaves_nothing_behind() -> None:
    limit = TimeLimit()
    broker, message = begin(limit, time_limit=-time_limit.WEDGED_AFTER_S * 1000)
    limit.after_skip_message(broker, message)
    assert not limit.wedged()


def test_one_wedged_thread_among_others_is_enough() -> None:
    limit = TimeLimit()
    begin(limit, time_limit=-time_limit.WEDGED_AFTER_S * 1000)
    other = threading.Thread(target=lambda: limit.after_process_message(*begin(limit)))
    other.start()
    other.join(20)
    assert limit.wedged()
