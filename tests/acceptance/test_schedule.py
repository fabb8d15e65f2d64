"""The clean-up at 03:00, with real schedulers at a 03:00 that comes in a few seconds: once for each date."""

from __future__ import annotations

import json
import time as clock
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from dream.db import DreamTask
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import TaskState
from dream.scheduler.runner import Runner
from dream.settings import Settings
from tests.acceptance.conftest import System
from tests.commands import dream
from tests.conftest import wait_for
from tests.processes import Parts
from tests.zones import write_zone

ZONE = "Test/Soon"


def clean_ups(system: System) -> list[DreamTask]:
    """Those that were submitted, the newest last."""
    query = select(DreamTask).where(DreamTask.name == CLEANUP_TOKENS).order_by(DreamTask.id)
    with system.database.read() as session:
        return list(session.scalars(query))


@pytest.mark.slow
def test_two_schedulers_one_killed_around_three_run_it_once_a_date(
    parts_anew: Parts, system: System, environment: dict[str, str], tmp_path: Path
) -> None:
    """At their start the one that was missed yesterday, at 03:00 today's; and again at no later start."""
    launched = clock.monotonic()
    here = {"PYTHONTZPATH": str(tmp_path / "zones"), "DREAM_TIMEZONE": ZONE}
    worker, start_s = parts_anew.start("worker"), clock.monotonic() - launched
    # Time for two schedulers to start in, as quick as this machine is just now.
    until_three_s = min(50, 3 + round(3 * start_s))
    began = write_zone(tmp_path / "zones", ZONE, time(2, 59, 60 - until_three_s))
    first, second = parts_anew.start("scheduler", ready=False, **here), parts_anew.start("scheduler", **here)
    wait_for(lambda: len(clean_ups(system)) >= 1, what="the clean-up that was missed")
    wait_for(
        lambda: datetime.now(UTC) > began + timedelta(seconds=until_three_s - 0.5),
        timeout_s=60,
        what="the second before 03:00",
    )
    parts_anew.kill(first)
    third = parts_anew.start("scheduler", **here)
    yesterdays, todays = wait_for(lambda: len(rows := clean_ups(system)) == 2 and rows, what="today's clean-up")
    for each in (second, third, parts_anew.start("scheduler", **here)):
        assert parts_anew.stop(each) == 0  # its jobs have run
    assert clean_ups(system)[-1].id == todays.id
    assert yesterdays.id < todays.id
    assert [system.await_end(each.id).state for each in (yesterdays, todays)] == [TaskState.SUCCEEDED] * 2
    assert len(clean_ups(system)) == 2
    lines = [json.loads(line) for line in parts_anew.log_of(worker).splitlines()]
    assert [line["task_id"] for line in lines if line["event"] == "task_started"] == [yesterdays.id, todays.id]
    [shown] = dream({**environment, **here}, "schedule").stdout.splitlines()
    day = todays.id.rpartition(":")[2]
    tomorrow = datetime.fromisoformat(day) + timedelta(days=1)
    assert shown.split("\t")[:3] == ["cleanup-expired-tokens", day, "succeeded, result 0"]
    assert shown.split("\t")[3].startswith(f"{tomorrow:%Y-%m-%d} 03:00")


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[Path]:
    """A folder of time zones that this process looks into."""
    folder = tmp_path / "zones"
    zoneinfo.reset_tzpath([str(folder), *zoneinfo.TZPATH])
    yield folder
    zoneinfo.reset_tzpath()


@pytest.mark.parametrize(
    ("name", "by_s"),
    [("Test/Skips", 3600), ("Test/Repeats", -3)],
    ids=["left out", "shown twice"],
)
@pytest.mark.slow
def test_a_switch_of_clocks_at_three_neither_skips_nor_doubles_it(
    system: System, settings: Settings, zones: Path, name: str, by_s: int
) -> None:
    """The clock goes from 02:59:59 to 04:00, or from 03:00:01 back to 02:59:58; two schedulers run meanwhile."""
    began = write_zone(zones, name, time(2, 59, 58), switch_in_s=2 if by_s > 0 else 4, by_s=by_s)
    # The switch shows 03:00 at second 2, and where it is put back, again at second 5.
    runners = [Runner(settings.model_copy(update={"timezone": name})) for _ in range(2)]
    for runner in runners:
        runner.start()
    try:
        wait_for(lambda: datetime.now(UTC) > began + timedelta(seconds=2.9 if by_s > 0 else 6), what="the switch")
        local = datetime.now(ZoneInfo(name))
        wait_for(lambda: clean_ups(system)[-1:] and clean_ups(system)[-1].id.endswith(f"{local:%Y-%m-%d}"), timeout_s=5)
    finally:
        for runner in runners:
            runner.stop()
    assert [each.id.rpartition(":")[2] for each in clean_ups(system)] == [
        f"{local - timedelta(days=1):%Y-%m-%d}",
        f"{local:%Y-%m-%d}",
    ]


def test_a_scheduler_that_has_stopped_leaves_no_connection(system: System, settings: Settings) -> None:
    """Seen by the server, after the scheduler has sent a message."""
    before = {each["id"] for each in system.redis.client_list()}
    runner = Runner(settings)
    runner.start()
    wait_for(lambda: clean_ups(system), what="the clean-up that was missed")
    runner.stop()
    wait_for(lambda: {each["id"] for each in system.redis.client_list()} <= before, what="the end of its connections")


def test_a_scheduler_without_tables_says_what_to_do(
    system: System, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'bare.db'}"}))
    runner.start()
    try:
        wait_for(lambda: "run `dream migrate`" in caplog.text, what="its word")
    finally:
        runner.stop()


def test_leftovers_of_a_night_without_a_scheduler_go_at_the_next_start(system: System, settings: Settings) -> None:
    """Here the bytes of an upload that was never recorded, from days ago."""
    old = settings.model_copy(update={"staging_orphan_s": 0.01})
    system.storage.put_bytes(settings.s3_bucket, "staging/20260101/orphan", b"x")
    runner = Runner(old)
    runner.start()
    try:
        wait_for(lambda: system.objects() == [], what="an empty bucket")
    finally:
        runner.stop()
