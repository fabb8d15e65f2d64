"""Periodic tasks of a Celery-compatible app, with real schedulers and a real worker."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from sqlalchemy import select

from dream.db import DreamPeriodic, DreamTask
from dream.messages import TaskState
from tests.acceptance.conftest import System
from tests.acceptance.test_start_scripts import BEAT
from tests.conftest import wait_for
from tests.processes import Parts

SHOP = """
from dream.celery import celery_app
from dream.celery.tasks import cleanup_expired_tokens

@celery_app.on_after_configure.connect
def set_up(sender, **_):
    sender.add_periodic_task(1.0, cleanup_expired_tokens, name="tick")
"""


def test_two_schedulers_send_each_due_time_once_and_another_goes_on_after_them(
    parts: Parts, system: System, tmp_path: Path
) -> None:
    """Both are killed at once; the third counts from where they were."""
    (tmp_path / "shop.py").write_text(SHOP)
    beat = {"program": [str(BEAT)], "cwd": tmp_path}

    def runs() -> list[DreamTask]:
        with system.database.read() as session:
            ticks = select(DreamTask).where(DreamTask.id.not_like("cleanup-%")).order_by(DreamTask.created_at)
            return list(session.scalars(ticks))

    parts.start("worker")
    two = [parts.start("-A", "shop", "beat", **beat, ready=False) for _ in range(2)]
    wait_for(lambda: len(runs()) >= 3, 30, "three runs")
    for each in two:
        parts.kill(each)
    before = len(runs())
    parts.start("scheduler", "-A", "shop", cwd=tmp_path)
    wait_for(lambda: len(runs()) >= before + 2, 30, "two more runs")
    wait_for(lambda: all(run.state is TaskState.SUCCEEDED for run in runs()[:-1]), 30, "their end")
    apart_s = [(later.created_at - earlier.created_at).total_seconds() for earlier, later in pairwise(runs())]
    assert min(apart_s) > 0.5, "a due time was sent twice"
    with system.database.read() as session:
        assert session.get(DreamPeriodic, "tick") is not None
