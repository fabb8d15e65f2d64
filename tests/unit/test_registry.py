"""The registry of dream's own tasks: an entry and the module of its flow are all that a new task needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dream.messages.registry import REGISTRY, TaskKind, load

ROOT = Path(__file__).resolve().parents[2]
NAME = "dream.celery.tasks.number_tasks.double"
ENTRY = f"""
    TaskKind(
        name={NAME!r},
        older_names=("dream.celery.tasks.number_tasks.twice",),
        parameters=("number",),
        flow="dream.actors.doubling:double",
        entry="double-each-day",
        at=time(4, 30),
        doc="Double a number.",
    ),
)

#: Older names"""
FLOW = '''
"""Double a number."""

def double(resources, run, number):
    return 2 * number
'''
USE = f"""
import json
from dream.actors import broker
from dream.celery import celery_app
from dream.db import Database, Base
from dream.messages.registry import ALIASES, OWN_TASKS, queue_of
from dream.runs.timetable import TIMETABLE
from dream.settings import load

Base.metadata.create_all(Database(load()).engine)
task = celery_app.tasks[{NAME!r}]
sent = task.delay(number=4)
called = task(21)
try:
    task.delay()
except TypeError as error:
    refused = str(error)
from dream.producer import default
with default().database.read() as session:
    from dream.db import DreamTask
    row = session.get(DreamTask, sent.id)
    args = row.args
print(json.dumps({{
    "called": called,
    "args": args,
    "refused": refused,
    "actors": sorted(set(broker.actors) & OWN_TASKS),
    "queue": queue_of({NAME!r}),
    "older": ALIASES["dream.celery.tasks.number_tasks.twice"],
    "daily": [[each.name, each.task, str(each.at)] for each in TIMETABLE][-1],
    "beat": sorted(celery_app.conf.beat_schedule),
    "doc": task.__doc__,
}}))
"""


def test_a_task_is_added_by_its_entry_and_its_flow(tmp_path: Path) -> None:
    """In a copy of the package: it is sent, called here, declared as an actor, and in the timetable."""
    shutil.copytree(ROOT / "dream", tmp_path / "dream", ignore=shutil.ignore_patterns("__pycache__"))
    registry = tmp_path / "dream/messages/registry.py"
    registry.write_text(registry.read_text().replace(")\n\n#: Older names", ENTRY, 1))
    (tmp_path / "dream/actors/doubling.py").write_text(FLOW)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAM_")}
    environment |= {
        "DREAM_DATABASE_URL": f"sqlite:///{tmp_path}/dream.db",
        "DREAM_BROKER_URL": "redis://127.0.0.1:9/0",
        "PYTHONPATH": str(tmp_path),
    }
    outcome = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout.splitlines()[-1]) == {
        "called": 42,
        "args": [4],
        "refused": f"{NAME}: missing a required argument: 'number'",
        "actors": sorted(
            [NAME, "dream.celery.tasks.number_tasks.twice", *(name for kind in REGISTRY for name in names_of(kind))]
        ),
        "queue": "default",
        "older": NAME,
        "daily": ["double-each-day", NAME, "04:30:00"],
        "beat": ["cleanup-expired-tokens", "double-each-day"],
        "doc": "Double a number.",
    }


def names_of(kind: TaskKind) -> tuple[str, ...]:
    return (kind.name, *kind.older_names)


@pytest.mark.parametrize("kind", REGISTRY, ids=lambda kind: kind.name.rpartition(".")[2])
def test_the_functions_of_an_entry_exist(kind: TaskKind) -> None:
    assert all(callable(load(name)) for name in (kind.order, kind.flow, kind.last_event) if name)


def test_names_are_used_once() -> None:
    names = [name for kind in REGISTRY for name in names_of(kind)]
    assert len(set(names)) == len(names)
    entries = [kind.entry for kind in REGISTRY if kind.entry]
    assert len(set(entries)) == len(entries)
