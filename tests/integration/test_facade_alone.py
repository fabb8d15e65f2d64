"""The façade and the engine alone: an app runs where nothing is installed that pictures, rows and pages need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.processes import Parts

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("PIL", "alembic", "boto3", "numpy", "sqlalchemy", "starlette", "typer")
SHOP = """
from dream.compat import Celery

app = Celery("shop", beat_schedule={"add": {"task": "shop.add", "schedule": 1, "args": (1, 1)}})


@app.task
def add(first, second):
    return first + second


@app.task(bind=True)
def second_time(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries
"""


def named_by_docs() -> list[str]:
    """The requirements that docs/celery.md says to install beside `--no-deps /path/to/dream`."""
    text = (ROOT / "docs/celery.md").read_text(encoding="utf-8")
    section = text[text.index("## Without pictures") :]
    command = next(line for line in section.splitlines() if line.startswith("pip install") and "--no-deps" not in line)
    return re.findall(r"'([^']+)'", command)


def with_what_they_need(requirements: Iterable[str]) -> Iterator[metadata.Distribution]:
    """The installed distributions of these requirements, and those that they require themselves."""
    waiting, seen = [Requirement(each) for each in requirements], set[str]()
    while waiting:
        wanted = waiting.pop()
        if wanted.name in seen:
            continue
        seen.add(wanted.name)
        found = metadata.distribution(wanted.name)
        assert wanted.specifier.contains(found.version)
        yield found
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": each}) for each in ("", *wanted.extras)):
                waiting.append(needed)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with dream, with what the page names, and with nothing else."""
    site = tmp_path / "site"
    site.mkdir()
    for distribution in with_what_they_need(named_by_docs()):
        names = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for name in names:
            (site / name).symlink_to(Path(str(distribution.locate_file(name))))
    (site / "dream").symlink_to(ROOT / "dream")
    (site / "shop.py").write_text(SHOP)
    return site


@pytest.fixture
def alone(site: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment that names servers of the engine only."""
    names = ("DREAM_BROKER_URL", "DREAM_REDIS_URL", "DREAM_REDIS_PREFIX", "DREAM_WORKER_POLL_MS")
    servers = {name: environment[name] for name in names if name in environment}
    return {**servers, "PYTHONPATH": str(site)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without its `site-packages`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("DREAM_")}
    command = [sys.executable, "-S", *arguments]
    folder = environment["PYTHONPATH"]
    return subprocess.run(
        command, env={**others, **environment}, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def printed(environment: dict[str, str], program: str) -> list[str]:
    outcome = run(environment, "-W", "error", "-c", program)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()


def test_the_page_names_requirements_of_the_package() -> None:
    required = [Requirement(each) for each in metadata.requires("dream-pictures") or ()]
    for each in map(Requirement, named_by_docs()):
        same = [ours for ours in required if ours.name == each.name and ours.specifier == each.specifier]
        assert any(ours.extras >= each.extras for ours in same)


def test_an_app_sends_runs_retries_reads_and_revokes(alone: dict[str, str], tmp_path: Path) -> None:
    program = f"""
from importlib.util import find_spec
assert not [name for name in {ABSENT} if find_spec(name)]
from shop import add, app, second_time
late = add.apply_async((1, 1), countdown=600)
late.revoke()
print(add.delay(2, 3).get(timeout=30), second_time.delay().get(timeout=30), late.state)
print([list(each.values()) for each in app.control.ping()], app.AsyncResult("nobody").state)
app.close()
"""
    parts = Parts(alone, tmp_path)
    try:
        worker = parts.start("-A", "shop", program=("-S", "-m", "dream.celery.worker"), cwd=Path(alone["PYTHONPATH"]))
        assert printed(alone, program) == ["5 1 REVOKED", "[[{'ok': 'pong'}]] PENDING"]
        assert parts.stop(worker) == 0
    finally:
        parts.end()


def test_the_current_app_is_there_without_any_other(alone: dict[str, str]) -> None:
    assert printed(alone, "from dream.compat import current_app; print(current_app)") == ["<Celery default>"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-m", "dream.celery.beat", "-A", "shop"), "periodic tasks need a database"),
        (("-m", "dream.celery.worker"), "no app is named"),
        (("-m", "dream.celery.worker", "-Q", "dream_image_processing"), "there is no queue 'dream_image_processing'"),
    ],
    ids=["beat", "no app", "a queue of pictures"],
)
def test_a_command_that_needs_the_product_is_refused_in_a_line(
    alone: dict[str, str], arguments: tuple[str, ...], told: str
) -> None:
    outcome = run(alone, *arguments)
    assert outcome.returncode != 0
    assert outcome.stderr.count("\n") == 1
    assert told in outcome.stderr


def test_a_project_may_register_no_host_or_one_of_its_own(alone: dict[str, str]) -> None:
    program = """
from dream.compat import host
assert type(host.host()).__module__ == "dream.celery.host"
host.register(None)
assert type(host.host()).__module__ == "dream.compat.alone"
host.register("tests.own_host")
try:
    host.host()
except ModuleNotFoundError as error:
    print(error.name)
"""
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False, cwd=ROOT
    )
    assert outcome.stdout.split() == ["tests.own_host"], outcome.stderr
