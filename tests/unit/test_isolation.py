"""Isolation: tasks run side by side; one whose worker died before runs alone, and its turn comes."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from dream.work.isolation import Isolation

LONG_S = 10.0
#: How long a thread that may not pass is watched; a broken gate lets it through at once.
WATCHED_S = 0.1


class Visitor:
    """A thread that goes through the gate and stays inside until it is told to leave."""

    def __init__(self, gate: Isolation, *, alone: bool) -> None:
        self._gate = gate
        self._alone = alone
        self._may_leave = threading.Event()
        self.is_inside = threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def _visit(self) -> None:
        self._gate.enter(alone=self._alone)
        self.is_inside.set()
        self._may_leave.wait(LONG_S)
        self._gate.leave()

    def leave(self) -> None:
        self._may_leave.set()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()


@pytest.fixture
def gate() -> Isolation:
    return Isolation()


def test_ordinary_tasks_run_side_by_side(gate: Isolation) -> None:
    visitors = [Visitor(gate, alone=False) for _ in range(4)]
    assert all(visitor.is_inside.wait(LONG_S) for visitor in visitors)
    for visitor in visitors:
        visitor.leave()


def test_a_suspect_waits_until_everybody_has_left(gate: Isolation) -> None:
    first, second = Visitor(gate, alone=False), Visitor(gate, alone=False)
    assert first.is_inside.wait(LONG_S)
    assert second.is_inside.wait(LONG_S)
    suspect = Visitor(gate, alone=True)
    assert not suspect.is_inside.wait(WATCHED_S)
    first.leave()
    assert not suspect.is_inside.wait(WATCHED_S)
    second.leave()
    assert suspect.is_inside.wait(LONG_S)
    suspect.leave()


@pytest.mark.parametrize("alone", [False, True])
def test_nobody_enters_beside_a_suspect(gate: Isolation, alone: bool) -> None:
    suspect = Visitor(gate, alone=True)
    assert suspect.is_inside.wait(LONG_S)
    other = Visitor(gate, alone=alone)
    assert not other.is_inside.wait(WATCHED_S)
    suspect.leave()
    assert other.is_inside.wait(LONG_S)
    other.leave()


def test_newcomers_do_not_starve_a_suspect_that_waits(gate: Isolation) -> None:
    first = Visitor(gate, alone=False)
    assert first.is_inside.wait(LONG_S)
    suspect = Visitor(gate, alone=True)
    assert not suspect.is_inside.wait(WATCHED_S)
    newcomer = Visitor(gate, alone=False)
    assert not newcomer.is_inside.wait(WATCHED_S)
    first.leave()
    assert suspect.is_inside.wait(LONG_S)
    assert not newcomer.is_inside.is_set()
    suspect.leave()
    assert newcomer.is_inside.wait(LONG_S)
    newcomer.leave()


def test_in_a_crowd_a_suspect_is_always_alone_and_all_come_through(gate: Isolation) -> None:
    """Eight threads, 400 visits, one in five a suspect: none is ever seen beside it, and none hangs."""
    inside: list[bool] = []
    lock = threading.Lock()

    def visit(alone: bool) -> bool:
        gate.enter(alone=alone)
        with lock:
            inside.append(alone)
        looks: list[bool] = []
        for _ in range(10):
            time.sleep(0)  # gives way, so that others come in where they can
            with lock:
                looks.append(len(inside) == 1 or True not in inside)
        with lock:
            inside.remove(alone)
        gate.leave()
        return all(looks)

    choice = random.Random(7)
    with ThreadPoolExecutor(8) as pool:
        visits: list[Future[bool]] = [pool.submit(visit, choice.random() < 0.2) for _ in range(400)]
        wait(visits, LONG_S)
    assert all(each.result(0) for each in visits)
