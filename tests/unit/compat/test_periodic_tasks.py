"""The entries of `beat_schedule`: what may be in them, what is refused, from when the next run is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dream.celery import celery_app
from dream.celery.tasks import cleanup_expired_tokens
from dream.compat import Celery
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.periodic import periodic_tasks
from dream.compat.schedules import BaseSchedule, crontab, schedstate, schedule
from dream.messages.registry import CLEANUP_TOKENS

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class EveryOtherMinute(BaseSchedule):
    """A caller's own schedule, as Celery's documentation tells to write one."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + timedelta(minutes=2) - self.now()

    def is_due(self, last_run_at: datetime) -> Any:
        remaining_s = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(remaining_s <= 0, remaining_s if remaining_s > 0 else 120)


def app_with(**entries: Any) -> Celery:
    return Celery("shop", beat_schedule=entries)


def test_an_entry_has_a_task_a_schedule_and_what_it_is_sent_with() -> None:
    app = app_with(a={"task": "t", "schedule": 5, "args": [1], "kwargs": {"k": 2}, "options": {"queue": "q"}})
    [task] = periodic_tasks(app)
    assert (task.name, task.task, task.schedule) == ("a", "t", schedule(5))
    assert (task.args, task.kwargs, task.options, task.schedule.app) == ([1], {"k": 2}, {"queue": "q"}, app)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"schedule": 5}, "must be a mapping with task and schedule"),
        ("shop.task", "must be a mapping with task and schedule"),
        ({"task": "t", "schedule": "* * * * *"}, "which is no schedule"),
        ({"task": "t", "schedule": 5, "arguments": []}, "the unknown field 'arguments'"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_by_name(entry: Any, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"beat_schedule: 'wrong'.*{said}"):
        periodic_tasks(app_with(right={"task": "t", "schedule": 5}, wrong=entry))


def test_dreams_own_timetable_is_not_run_twice_and_not_overwritten() -> None:
    assert periodic_tasks(celery_app) == []
    other = {"task": CLEANUP_TOKENS, "schedule": crontab(minute=0, hour=4)}
    with pytest.raises(ImproperlyConfigured, match="in dream's own timetable; use another name"):
        periodic_tasks(app_with(**{"cleanup-expired-tokens": other}))


def test_a_periodic_task_is_added_under_its_name_or_what_its_call_looks_like() -> None:
    app = app_with()
    app.add_periodic_task(5, cleanup_expired_tokens, name="mine", queue="q")
    assert app.add_periodic_task(5, cleanup_expired_tokens, [1], {"k": "v"}) == f"{CLEANUP_TOKENS}(1, k='v')"
    first, second = periodic_tasks(app)
    assert (first.name, first.task, first.options) == ("mine", CLEANUP_TOKENS, {"queue": "q"})
    assert (second.args, second.kwargs) == ((1,), {"k": "v"})


@pytest.mark.parametrize(
    ("due", "counted_from", "now", "next_from"),
    [
        (schedule(60), NOON, NOON + timedelta(seconds=70), NOON + timedelta(seconds=60)),
        (schedule(60), NOON, NOON + timedelta(seconds=170), NOON + timedelta(seconds=170)),
        (crontab(), NOON, NOON + timedelta(seconds=70), NOON + timedelta(seconds=60)),
        (crontab(), NOON, NOON + timedelta(days=7), NOON + timedelta(days=7)),
    ],
    ids=["on its beat", "one was missed", "crontab", "a week was missed"],
)
def test_the_next_run_is_counted_from_when_this_one_was_due_or_from_now(
    due: BaseSchedule, counted_from: datetime, now: datetime, next_from: datetime
) -> None:
    """So an interval does not drift, and what was missed runs once."""
    [task] = periodic_tasks(app_with(a={"task": "t", "schedule": due}))
    assert task.due_at(counted_from, now) == next_from


def test_a_schedule_of_a_callers_own_is_asked_what_celery_asks() -> None:
    due = EveryOtherMinute(nowfun=lambda: NOON)
    [task] = periodic_tasks(app_with(a={"task": "t", "schedule": due}))
    assert task.is_due(NOON - timedelta(minutes=1)) == (False, 60)
    assert task.is_due(NOON - timedelta(minutes=2)) == (True, 120)
    assert task.due_at(NOON - timedelta(minutes=2), NOON) == NOON
