"""Pauses that double with each failure."""

from __future__ import annotations

from dream.work.back_off import BackOff


def test_pauses_double_up_to_the_longest_and_steady_work_forgets_them() -> None:
    back_off = BackOff(first_s=0.2, max_s=1, steady_s=10)

    assert [round(back_off.next_pause_s(), 1) for _ in range(5)] == [0.2, 0.4, 0.8, 1, 1]
    assert back_off.next_pause_s(10) == 0.2
    assert all(back_off.next_pause_s() <= 1 for _ in range(2000))
