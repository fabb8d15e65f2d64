"""The fair queue before the pool."""

from __future__ import annotations

from dream.imaging.fair_queue import FairQueue


def _queue(jobs: str) -> FairQueue[str]:
    """Jobs such as `a1`; the letter is the group."""
    queue: FairQueue[str] = FairQueue()
    for job in jobs.split():
        queue.join(job[0], job)
    return queue


def _next(queue: FairQueue[str]) -> str:
    found = queue.next()
    return found[1] if found else ""


def test_a_newcomer_goes_before_a_group_that_has_a_running_job() -> None:
    queue = _queue("a1 a2 a3 a4")
    assert [_next(queue), _next(queue)] == ["a1", "a2"]
    queue.join("b", "b1")
    queue.ended("a")
    assert [_next(queue), _next(queue), _next(queue), _next(queue)] == ["b1", "a3", "a4", ""]


def test_groups_take_turns_at_one_child_and_keep_their_own_order() -> None:
    queue, seen = _queue("a1 a2 a3 b1 b2 c1"), []
    while job := _next(queue):
        seen.append(job)
        queue.ended(job[0])
    assert seen == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_job_that_is_put_back_is_the_next_of_its_group() -> None:
    queue = _queue("a1 a2")
    assert queue.next() == ("a", "a1")
    queue.put_back("a", "a1")
    assert [_next(queue), _next(queue)] == ["a1", "a2"]


def test_a_job_that_leaves_is_not_started_and_nothing_stays() -> None:
    queue = _queue("a1 a2 b1")
    assert [queue.leave(job[0], job) for job in ("a1", "b1", "never", "a1")] == [True, True, False, False]
    assert [_next(queue), _next(queue)] == ["a2", ""]
    queue.ended("a")
    assert vars(queue) == {"_waiting": {}, "_running": {}}
