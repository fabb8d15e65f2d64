"""The line before the pool."""

from __future__ import annotations

from dream.imaging.line import Line


def _line(jobs: str) -> Line[str]:
    """Jobs such as `a1`; the letter is the group."""
    line: Line[str] = Line()
    for job in jobs.split():
        line.join(job[0], job)
    return line


def _next(line: Line[str]) -> str:
    found = line.next()
    return found[1] if found else ""


def test_a_newcomer_goes_before_a_group_that_has_a_running_job() -> None:
    line = _line("a1 a2 a3 a4")
    assert [_next(line), _next(line)] == ["a1", "a2"]
    line.join("b", "b1")
    line.ended("a")
    assert [_next(line), _next(line), _next(line), _next(line)] == ["b1", "a3", "a4", ""]


def test_groups_take_turns_at_one_child_and_keep_their_own_order() -> None:
    line, seen = _line("a1 a2 a3 b1 b2 c1"), []
    while job := _next(line):
        seen.append(job)
        line.ended(job[0])
    assert seen == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_job_that_is_put_back_is_the_next_of_its_group() -> None:
    line = _line("a1 a2")
    assert line.next() == ("a", "a1")
    line.put_back("a", "a1")
    assert [_next(line), _next(line)] == ["a1", "a2"]


def test_a_job_that_leaves_is_not_started_and_nothing_stays() -> None:
    line = _line("a1 a2 b1")
    for job in ("a1", "b1", "never"):
        line.leave(job[0], job)
    assert [_next(line), _next(line)] == ["a2", ""]
    line.ended("a")
    assert vars(line) == {"_waiting": {}, "_running": {}}
