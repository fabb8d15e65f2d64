"""The judgement of `python -m tests.flat`: a leak is found, and what settles or comes and goes is none."""

from __future__ import annotations

from tests.flat import Use, grown


def series(*megabytes: float, descriptors: int = 30) -> list[dict[str, Use]]:
    return [{"worker": Use(int(each * 1e6), descriptors)} for each in megabytes]


def test_a_process_that_grows_all_the_time_is_found() -> None:
    assert grown("worker", series(*range(100, 180, 2)), 0.15) == (
        "worker grows: 120.0 MB in the second quarter, 160.0 MB in the last"
    )


def test_growth_before_the_first_quarter_has_passed_is_warming_up() -> None:
    assert grown("worker", series(50, 80, 95, *[100] * 17), 0.15) == ""


def test_a_peak_that_is_given_back_is_no_leak() -> None:
    assert grown("worker", series(*[100, 100, 180] * 8), 0.15) == ""


def test_a_small_process_may_grow_by_some_pages() -> None:
    assert grown("worker", series(*[10.0] * 10, *[13.5] * 10), 0.15) == ""


def test_descriptors_that_stay_open_are_found() -> None:
    early, late = series(*[100] * 10, descriptors=30), series(*[100] * 10, descriptors=36)
    assert grown("worker", early + late, 0.15) == "worker keeps descriptors: 30 in the second quarter, 36 in the last"
