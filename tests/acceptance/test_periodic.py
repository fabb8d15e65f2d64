"""Periodic tasks of a Celery-compatible app, with real schedulers and a real worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import BEAT, Parts

SHOP = """
import time
from pathlib import Path
from dream.compat import Celery
from dream.compat.signals import beat_init
from dream.compat.utils.log import get_task_logger

app = Celery("shop")

@app.task(bind=True)
def tick(self):
    get_task_logger(__name__).info("ticked")
    with Path("runs").open("a") as runs:
        runs.write(f"{self.request.id} {time.time()}\\n")

@app.on_after_configure.connect
def set_up(sender, **_):
    sender.add_periodic_task(1.0, tick.s(), name="tick")

@beat_init.connect
def begin(sender, **_):
    Path("begun").touch()
"""


@pytest.mark.slow
def test_two_schedulers_send_each_due_time_once_and_another_goes_on_after_them(
    parts: Parts, system: System, tmp_path: Path
) -> None:
    """Both are killed at once; the third counts from where they were."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "runs").touch()

    def runs() -> list[list[str]]:
        return [line.split() for line in (tmp_path / "runs").read_text().splitlines()]

    worker = parts.start("worker", "-A", "shop", "--queues", "default", cwd=tmp_path)
    two = [parts.start("-A", "shop", "beat", program=[str(BEAT)], cwd=tmp_path, ready=False) for _ in range(2)]
    wait_for(lambda: len(runs()) >= 3, 30, "three runs")
    for each in two:
        parts.kill(each)
    before = len(runs())
    parts.start("scheduler", "-A", "shop", cwd=tmp_path)
    wait_for(lambda: len(runs()) >= before + 2, 30, "two more runs")
    assert (tmp_path / "begun").exists()
    lines = [json.loads(line) for line in parts.log_of(worker).splitlines() if '"ticked"' in line]
    assert [line["task_id"] for line in lines][:3] == [task_id for task_id, _ in runs()][:3]
    assert len({task_id for task_id, _ in runs()}) == len(runs()), "a due time was run twice"
    times = [float(at) for _, at in runs()]
    for some in (times[:3], times):  # one a second; the first of them may be late by nearly that
        assert len(some) - 1 < some[-1] - some[0] + 0.9, "a due time was sent twice"
