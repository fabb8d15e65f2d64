"""deploy/systemd: systemd's own checks, each unit's command at a notify socket, and all of it under a real systemd."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from dramatiq import Message

from dream.db.dreams import give_to
from dream.messages.registry import QUEUES
from dream.settings import Settings
from dream.stack.ports import choose
from dream.work.broker import make_broker
from tests.acceptance.conftest import System
from tests.conftest import prepare, settings_from, wait_for
from tests.deployed import DEPLOY, ROOT, Place
from tests.gateway import OWNER, SECRET, token
from tests.nginx import program
from tests.notify_socket import NotifySocket
from tests.processes import Parts
from tests.systemd import Systemd

pytestmark = pytest.mark.slow

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PARTS = [each for each in UNITS if each.stem != "dream-migrate"]
#: The template starts the same command as dream-worker.
STARTED = [each for each in PARTS if each.stem != "dream-worker@"]
DREAM = 7
#: Short, so that silence is soon clear; pings come each second.
WATCHDOG_S = 3
WEDGED_WORKER = Path(__file__).with_name("wedged_worker.py")


def unit(path: Path) -> configparser.SectionProxy:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(path.read_text())
    return parsed["Service"]


# --- the files


@pytest.fixture
def units(place: Place) -> Path:
    """The folder of the units, with programs that exist here."""
    folder = place.folder / "units"
    folder.mkdir()
    for path in UNITS:
        (folder / path.name).write_text(place.filled_in(path.read_text()))
    return folder


def test_each_unit_has_the_same_common_part() -> None:
    """A unit is whole by itself: an operator who copies one file has its hardening, too."""
    parts = {
        re.split(r"\n\[|\Z", path.read_text().split("# --- the same in every unit\n")[1])[0].strip() for path in UNITS
    }
    assert len(parts) == 1


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    found = sorted(map(str, units.glob("*.service")))
    checked = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *found], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_systemd_rates_the_exposure_of_every_unit_below_three(units: Path) -> None:
    found = sorted(map(str, units.glob("*.service")))
    rated = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=29", *found],
        capture_output=True,
        text=True,
        check=False,
    )
    levels = [float(each) for each in re.findall(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)]
    assert len(levels) == len(UNITS)
    assert max(levels) < 3.0
    assert rated.returncode == 0, rated.stdout


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_a_part_wants_the_migration_and_does_not_require_it(path: Path) -> None:
    """systemd restarts what requires a unit with that unit, and does not start it where that has failed."""
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and line[0] != "#")
    assert "dream-migrate.service" in lines["Wants"].split()
    assert "dream-migrate.service" in lines["After"].split()
    assert not {"Requires", "BindsTo", "PartOf"} & lines.keys()


@pytest.mark.parametrize("path", [each for each in PARTS if "worker" in each.stem], ids=lambda path: path.stem)
def test_a_worker_may_use_its_shutdown_time_before_systemd_kills_it(path: Path) -> None:
    shutdown_timeout_s = Settings.model_fields["shutdown_timeout_s"].default
    for limit in ("TimeoutStopSec", "WatchdogSec"):
        assert int(unit(path)[limit]) >= shutdown_timeout_s + 15


# --- at a notify socket


@pytest.fixture
def manager() -> Iterator[NotifySocket]:
    manager = NotifySocket()
    yield manager
    manager.close()


class Source:
    """A Redis of Celery's, as the bridge reads it."""

    def __init__(self, system: System) -> None:
        self.url = re.sub(r"/0$", "/5", system.settings.broker_url)
        self._redis = redis.Redis.from_url(self.url)

    def moves_a_message(self) -> bool:
        self._redis.lpush("celery", "no message of Celery's: it is parked")
        wait_for(lambda: not self._redis.llen("celery"), what="the bridge's take")
        return True


def works(stem: str, system: System, place: Place, picture: bytes) -> bool:
    """Give the part something to do, and see that it does it."""
    if stem.endswith("worker"):
        task = system.producer.upload_images(DREAM, [{"name": "b.jpg", "data": picture}])
        wait_for(lambda: system.task(task).state.value != "queued", what="the start of the run")
    elif stem.endswith("gateway"):
        return httpx.get(f"http://127.0.0.1:{place.port}/healthz", trust_env=False).status_code == 200
    elif stem.endswith("bridge"):
        return Source(system).moves_a_message()
    else:
        with system.database.read() as session:
            from dream.db import tasks

            return tasks.newest_of(session, "cleanup-expired-tokens:") is not None
    return True


@pytest.mark.parametrize("path", STARTED, ids=lambda path: path.stem)
def test_a_unit_that_is_ready_works_and_pings_from_its_loop_and_says_that_it_stops(
    path: Path, place: Place, system: System, slow_picture: bytes, manager: NotifySocket
) -> None:
    """Started and stopped as systemd does: the environment file, the notify socket, SIGTERM to the main process."""
    service = unit(path)
    variables = {
        **place.environment,
        **place.settings,
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": f"{WATCHDOG_S * 1_000_000}",
        "CELERY_BROKER_URL": Source(system).url,
    }
    command = [
        "sh",
        "-c",
        'export WATCHDOG_PID=$$; exec "$@"',
        "sh",
        *shlex.split(place.filled_in(service["ExecStart"])),
    ]
    process = subprocess.Popen(command, env=variables, cwd=place.folder, stderr=subprocess.DEVNULL)
    try:
        before: list[str] = []
        manager.await_line("READY=1", 60, before.append)
        assert works(path.stem, system, place, slow_picture)
        assert "STOPPING=1" not in before

        loop = manager.await_line("WATCHDOG=1")
        os.kill(loop, signal.SIGSTOP)
        try:
            assert manager.is_silent("WATCHDOG=1", WATCHDOG_S)
        finally:
            os.kill(loop, signal.SIGCONT)
        manager.await_line("WATCHDOG=1")

        process.terminate()
        manager.await_line("STOPPING=1")
        assert process.wait(int(service["TimeoutStopSec"])) == 0
    finally:
        process.kill()
        process.wait()


def test_a_worker_with_a_consumer_that_hangs_says_so_and_pings_no_more(
    parts: Parts, settings: Settings, manager: NotifySocket
) -> None:
    """Its main thread goes on, and its other consumers too: a thread that always lives would have gone on pinging."""
    parts.start(program=[str(WEDGED_WORKER)], NOTIFY_SOCKET=manager.address, WATCHDOG_USEC=f"{WATCHDOG_S * 1_000_000}")
    manager.await_line("WATCHDOG=1")
    broker = make_broker(settings, QUEUES)
    message: Message[None] = Message("default", "cleanup_expired_tokens", (), {}, {})
    broker.enqueue(message, delay=60_000)
    broker.close()

    manager.await_line("STATUS=stuck: default.DQ for ")
    assert manager.is_silent("WATCHDOG=1", WATCHDOG_S)


def test_dramatiqs_own_command_is_ready_and_sends_no_pings(parts: Parts, manager: NotifySocket) -> None:
    """As docs/deploy.md says: its loop is Dramatiq's, and a unit for it has no WatchdogSec."""
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": f"{WATCHDOG_S * 1_000_000}"}
    parts.start("dream.actors", "-p", "1", "-t", "1", program=["-m", "dramatiq"], ready=False, **variables)
    manager.await_line("READY=1")
    assert manager.is_silent("WATCHDOG=1", WATCHDOG_S)


# --- under a real systemd


@pytest.fixture
def host(environment: dict[str, str], postgres_url: str, tmp_path: Path) -> Iterator[Callable[..., Systemd]]:
    """Boots a systemd with our units; secrets come as credentials."""
    booted: list[Systemd] = []
    secrets = {"jwt_secret": SECRET, "s3_secret_key": environment["DREAM_S3_SECRET_KEY"], "database_url": postgres_url}
    left_out = {"DREAM_WORK_DIR", "DREAM_JWT_SECRET", "DREAM_S3_SECRET_KEY", "DREAM_DATABASE_URL"}

    def boot(drop_in: str = "", **settings: str) -> Systemd:
        env = {name: value for name, value in environment.items() if name not in left_out}
        bridge = f"CELERY_BROKER_URL={re.sub(r'/0$', '/6', environment['DREAM_BROKER_URL'])}\n"
        files = {"bridge.env": bridge, "worker-b.env": "DREAM_WORKER_THREADS=2\n"}
        booted.append(Systemd(tmp_path, env | settings, secrets=secrets, files=files, drop_in=drop_in))
        return booted[0]

    yield boot
    for each in booted:
        each.end()


@pytest.fixture
def system_on_postgresql(environment: dict[str, str], postgres_url: str) -> Iterator[System]:
    system = System(prepare(settings_from(environment, database_url=postgres_url)))
    yield system
    system.close()


def test_under_a_real_systemd_the_hardened_units_get_their_secrets_work_and_stop(
    host: Callable[..., Systemd], system_on_postgresql: System, jpeg: bytes
) -> None:
    system, port = system_on_postgresql, choose()
    systemd = host(DREAM_PORT=str(port))
    names = ["dream-worker@a", "dream-worker@b", "dream-scheduler", "dream-gateway", "dream-bridge"]
    assert systemd.run("systemctl", "start", *names) == "", systemd.log.read_text()
    assert systemd.shows("dream-worker@b", "StatusText") == "takes default, dream_image_processing; 2 threads"

    task = system.producer.upload_images(DREAM, [{"name": "a.jpg", "data": jpeg}])
    assert system.await_end(task, 60).state.value == "succeeded"
    with system.database.begin() as session:
        give_to(session, DREAM, OWNER, "ann")
    listed = httpx.get(
        f"http://127.0.0.1:{port}/api/dreams/{DREAM}/images",
        headers={"Authorization": f"Bearer {token()}"},
        trust_env=False,
    )
    assert listed.status_code == 200, listed.text  # the gateway has the key that only the credential names

    assert systemd.run("systemctl", "stop", *names) == ""
    assert [(systemd.shows(name, "ActiveState"), systemd.shows(name, "Result")) for name in names] == [
        ("inactive", "success")
    ] * len(names)


def test_the_page_sends_a_first_picture_through_the_site(
    host: Callable[..., Systemd], system_on_postgresql: System
) -> None:
    """By the lines of docs/deploy.md, with secrets as credentials; the gateway is asked without nginx."""
    program("curl")
    port = choose()
    systemd = host(DREAM_PORT=str(port), DREAM_GATEWAY_URL=f"http://127.0.0.1:{port}")
    assert systemd.run("systemctl", "start", "dream-worker", "dream-gateway") == "", systemd.log.read_text()
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    chapter = page.partition("\n## The first picture\n")[2].partition("\n## ")[0]
    script = "".join(re.findall(r"^```sh\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL))
    script = script.replace("/opt/dream/.venv/bin/", f"{Path(sys.executable).parent}/")
    script = script.replace("/opt/dream/", f"{ROOT}/")

    printed = systemd.run("bash", "-ec", script).splitlines()

    sent, fetched, deleted = printed[1].split("\t"), printed[2], printed[4].split("\t")
    assert sent[1:4] == ["completed", "0", "page.webp"]
    assert fetched == f"200 image/jpeg {sent[5]} bytes"
    assert deleted[1:] == ["deleted", "page.webp"]


def test_a_real_systemd_restarts_a_worker_whose_loop_is_frozen(
    host: Callable[..., Systemd], system_on_postgresql: System, jpeg: bytes
) -> None:
    """By Celery's documented command. systemd kills the main process, and its frozen child dies with it."""
    system = system_on_postgresql
    systemd = host("WatchdogSec=4\nRestartSec=0\n")
    name = "dream-celery-worker"
    assert systemd.run("systemctl", "start", name) == "", systemd.log.read_text()
    main = systemd.shows(name, "MainPID")
    [child] = systemd.run("pgrep", "-P", main).split()
    systemd.run("kill", "-STOP", child)

    wait_for(lambda: systemd.shows(name, "NRestarts") != "0", 60, "the restart")
    wait_for(lambda: systemd.shows(name, "ActiveState") == "active", 60, "the new worker")
    assert systemd.run("ps", "-o", "pid=", "-p", child) == ""
    task = system.producer.upload_images(DREAM, [{"name": "a.jpg", "data": jpeg}])
    assert system.await_end(task, 60).state.value == "succeeded"
