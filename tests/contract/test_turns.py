"""Priorities and turns on Valkey and Redis (`dream/work/broker/turns.lua`)."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dramatiq import Message, Worker
from dramatiq.brokers.redis import RedisBroker as StockRedisBroker
from hypothesis import given, settings
from hypothesis import strategies as st

from dream.messages.registry import DELETE_IMAGES, IMAGES_QUEUE, PROCESS_IMAGES
from dream.runs.sending import message_of
from dream.settings import Settings
from dream.work.broker import send
from dream.work.broker.redis import RedisBroker
from dream.work.messages import DELIVERY_ID, turn
from tests.conftest import wait_for
from tests.contract.conftest import REDIS, Worked

both = pytest.mark.parametrize("broker_settings", ["valkey", REDIS], indirect=True)
_QUEUE = "q"
_MOST_COST = 5

_puts = st.tuples(st.just("put"), st.sampled_from("abc"), st.sampled_from([0, 5, 9]), st.integers(1, _MOST_COST))
_takes = st.tuples(st.just("take"), st.integers(1, 6), st.just(0), st.just(0))
_ends = st.sampled_from([("ack", 0, 0, 0), ("return", 0, 0, 0)])


class Model:
    """A queue, and beside it the numbers that must hold."""

    def __init__(self, url: str) -> None:
        self.broker = RedisBroker(url=url, namespace=f"t{uuid4().hex[:12]}")
        self.waiting: dict[str, tuple[int, str, int]] = {}
        self.in_work: list[str] = []
        self.acknowledged: list[str] = []
        self.returned: set[str] = set()
        #: For each waiting line, the cost that each other line of its priority got since its own last turn.
        self.passed_by: dict[tuple[int, str], defaultdict[str, int]] = {}
        self.sent = 0

    def put(self, group: str, priority: int, cost: int) -> None:
        name = f"{self.sent:04}"
        self.sent += 1
        _put(self.broker, name, group=group, priority=priority, cost=cost)
        self.waiting[name] = (priority, group, cost)
        self.passed_by.setdefault((priority, group), defaultdict(int))

    def take(self, count: int) -> None:
        for name in _taken(self.broker, count):
            priority, group, cost = self.waiting.pop(name)
            assert all(priority >= other for other, _, _ in self.waiting.values())
            if name not in self.returned:
                line = [each for each, (*of, _) in self.waiting.items() if of == [priority, group]]
                assert all(name < other for other in line if other not in self.returned)
            self._count(priority, group, cost)
            self.in_work.append(name)

    def _count(self, priority: int, group: str, cost: int) -> None:
        """No line waits while another one gets more than the two costs by which their turns may differ."""
        waiting = {(of, each) for of, each, _ in self.waiting.values()}
        for line, got in list(self.passed_by.items()):
            if line not in waiting or line == (priority, group):
                self.passed_by.pop(line)
                if line in waiting:
                    self.passed_by[line] = defaultdict(int)
            elif line[0] == priority:
                got[group] += cost
                assert got[group] <= 2 * _MOST_COST or self.returned

    def ack(self) -> None:
        for name in self.in_work:
            self.broker.do_ack(_QUEUE, name)
        self.acknowledged += self.in_work
        self.in_work = []

    def give_back(self) -> None:
        """The worker forgets its messages, as after a lost reply."""
        self.broker.requeue_orphans(_QUEUE)
        self.returned.update(self.in_work)
        for name in self.in_work:
            data: Any = self.broker.client.hget(f"{self.broker.namespace}:{_QUEUE}.msgs", name)
            of = {"priority": 5, "group": "", "cost": 1} | json.loads(data)["options"].get("turn", {})
            self.waiting[name] = (of["priority"], of["group"], of["cost"])
        self.in_work = []


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.one_of(_puts, _puts, _puts, _takes, _ends), max_size=60))
def test_no_message_is_lost_or_doubled_and_none_waits_for_longer_than_its_turn(
    servers: dict[str, str], steps: list[tuple[Any, ...]]
) -> None:
    model = Model(servers["DREAM_BROKER_URL"])
    try:
        for name, *arguments in steps:
            if name == "put":
                model.put(*arguments)
            elif name == "take":
                model.take(arguments[0])
            elif name == "ack":
                model.ack()
            else:
                model.give_back()
        while model.waiting:
            before = len(model.waiting)
            model.take(7)
            assert len(model.waiting) < before
        model.ack()
        assert sorted(model.acknowledged) == [f"{number:04}" for number in range(model.sent)]
        assert _keys(model.broker) <= {"__heartbeats__"}
    finally:
        for key in model.broker.client.scan_iter(f"{model.broker.namespace}:*"):
            model.broker.client.delete(key)
        model.broker.close()


@pytest.fixture
def redis_broker(broker: object) -> RedisBroker:
    assert isinstance(broker, RedisBroker)
    return broker


@both
def test_a_single_picture_goes_before_the_rest_of_thousands(redis_broker: RedisBroker) -> None:
    for number in range(2000):
        _put(redis_broker, f"many-{number}", group="user:1")
    assert _taken(redis_broker, 2) == ["many-0", "many-1"]
    _put(redis_broker, "single", group="user:2")
    assert "single" in _taken(redis_broker, 2)


@both
def test_users_take_turns_by_their_number_of_pictures(redis_broker: RedisBroker) -> None:
    for number in range(3):
        _put(redis_broker, f"large-{number}", group="user:1", cost=100)
    for number in range(250):
        _put(redis_broker, f"small-{number}", group="user:2")
    taken = [each.split("-")[0] for each in _taken(redis_broker, 250)]
    assert [taken[:101].count("small"), taken[:202].count("small")] == [100, 200]


@both
def test_the_tasks_of_a_dream_are_taken_in_the_order_in_which_they_were_sent(
    redis_broker: RedisBroker, broker_settings: Settings
) -> None:
    """Uploads and deletions alike, beside those of other dreams and with and without a known user."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    for number in range(30):
        name, pictures = (DELETE_IMAGES, []) if number % 3 else (PROCESS_IMAGES, [{}] * (number + 1))
        dream = number % 2
        args = [dream, pictures, []]
        send(redis_broker, message_of(broker_settings, f"{number:02}", name, args, user_id=7 if dream else None))
    taken = [Message.decode(each) for each in redis_broker.ack_and_fetch(queue, 100)[0]]
    for dream in range(2):
        of_dream = [each.message_id for each in taken if each.args[0] == dream]
        assert of_dream == sorted(of_dream)
        assert len(of_dream) == 15


@both
def test_long_tasks_of_one_user_leave_a_thread_for_another(
    redis_broker: RedisBroker, broker_settings: Settings, worked: Worked
) -> None:
    """And that thread takes the next user's at once, though a fetch finds only messages that may not have it."""
    may_end = threading.Event()
    worked.behaviour = lambda _call: may_end.wait(30)
    for number in range(9):
        send(redis_broker, message_of(broker_settings, f"many-{number}", PROCESS_IMAGES, [1, [], []], user_id=1))
    worker = Worker(redis_broker, worker_threads=3, worker_timeout=50)
    worker.start()
    try:
        wait_for(lambda: len(worked.calls) == 2, what="two tasks of the busy user")
        send(redis_broker, message_of(broker_settings, "single", PROCESS_IMAGES, [2, [], []], user_id=2))
        wait_for(lambda: len(worked.calls) == 3, what="the other user's task")
        assert [args[0] for _, args in worked.calls] == [1, 1, 2]
        may_end.set()
        wait_for(lambda: len(worked.calls) == 10, what="the other tasks")
    finally:
        may_end.set()
        worker.stop(timeout=5000)


@both
def test_a_priority_decides_before_turns_and_a_message_without_one_is_in_the_middle(redis_broker: RedisBroker) -> None:
    for name, priority in (("bulk", 0), ("low", 4), ("plain", None), ("high", 6), ("first", 200)):
        _put(redis_broker, name, priority=priority)
    assert _taken(redis_broker, 9) == ["first", "high", "plain", "low", "bulk"]


@both
@pytest.mark.parametrize(
    "option",
    [
        *("turn", None, 7, [], {"priority": "high"}, {"priority": -1}, {"priority": None}, {"priority": 4.5e400}),
        *({"group": 7}, {"group": "x" * 256}, {"cost": 0}, {"cost": -3}, {"cost": "1"}, {"cost": None}),
    ],
    ids=repr,
)
def test_a_strange_turn_loses_no_message(redis_broker: RedisBroker, option: Any) -> None:
    redis_broker.do_enqueue(_QUEUE, "a", json.dumps({"message_id": "a", "options": {"turn": option}}).encode())
    [data] = redis_broker.ack_and_fetch(_QUEUE, 5)[0]
    assert json.loads(data)["message_id"] == "a"
    redis_broker.do_ack(_QUEUE, "a")
    assert _keys(redis_broker) <= {"__heartbeats__"}


@both
def test_a_group_that_is_no_text_stops_no_worker(
    redis_broker: RedisBroker, broker_settings: Settings, worked: Worked
) -> None:
    """JSON can hold half a surrogate pair, and Redis's protocol cannot."""
    for number, group in enumerate(["\ud800", "user:1"]):
        message = message_of(broker_settings, f"task-{number}", PROCESS_IMAGES, [number, [], []])
        message = message.copy(options={"redis_message_id": f"{number}", "turn": {"group": group}})
        redis_broker.do_enqueue(message.queue_name, f"{number}", message.encode())
    worker = Worker(redis_broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        wait_for(lambda: {args[0] for _, args in worked.calls} == {0, 1}, what="both tasks")
    finally:
        worker.stop(timeout=5000)


@both
def test_discard_and_purge_remove_messages_in_their_lines(redis_broker: RedisBroker) -> None:
    for remove, count in ((redis_broker.discard, 3), (redis_broker.do_purge, None)):
        for name in "abcd":
            _put(redis_broker, name, group=name)
        assert _taken(redis_broker, 1) == ["a"]
        assert redis_broker.depth(_QUEUE).waiting == 3
        assert remove(_QUEUE) == count
        redis_broker.do_ack(_QUEUE, "a")
        assert _keys(redis_broker) <= {"__heartbeats__"}


@both
def test_workers_of_an_older_release_read_messages_of_new_senders(redis_broker: RedisBroker) -> None:
    """A message waits in the list, as in stock Dramatiq, until a worker of this release lines it up."""
    _put(redis_broker, "new", group="user:1", priority=9)
    older = StockRedisBroker(client=redis_broker.client, namespace=redis_broker.namespace)
    assert [Message.decode(each).message_id for each in older.do_fetch(_QUEUE, 5)] == ["new"]


@both
def test_the_documented_way_back_gives_lined_up_messages_to_an_older_release(redis_broker: RedisBroker) -> None:
    for name in "abcd":
        _put(redis_broker, name, group=name)
    assert _taken(redis_broker, 1) == ["a"]
    text = Path("docs/architecture.md").read_text("utf-8")
    [script] = re.findall(r'redis-cli EVAL "([^"]+)" 1 dream:dream_image_processing', text)
    redis_broker.client.eval(script, 1, f"{redis_broker.namespace}:{_QUEUE}")
    older = StockRedisBroker(client=redis_broker.client, namespace=redis_broker.namespace)
    assert [Message.decode(each).message_id for each in older.do_fetch(_QUEUE, 5)] == ["b", "c", "d"]


def _put(broker: RedisBroker, name: str, **how: Any) -> None:
    options = {DELIVERY_ID: name, **turn(**how)}
    broker.declare_queue(_QUEUE)
    broker.enqueue(Message(queue_name=_QUEUE, actor_name="a", args=(), kwargs={}, options=options, message_id=name))


def _taken(broker: RedisBroker, count: int) -> list[str]:
    return [Message.decode(each).message_id for each in broker.ack_and_fetch(_QUEUE, count)[0]]


def _keys(broker: RedisBroker) -> set[str]:
    """The broker's keys, without its namespace."""
    return {key.decode().partition(":")[2] for key in broker.client.scan_iter(f"{broker.namespace}:*")}
