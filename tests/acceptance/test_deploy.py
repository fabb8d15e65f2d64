"""The files under deploy/, run for real: supervisord, nginx, and systemd's own check of its units."""

from __future__ import annotations

import configparser
import getpass
import json
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

import dream
from dream.db.dreams import give_to
from dream.settings import Settings
from dream.stack.ports import choose
from dream.stack.servers import new_certificate
from tests.acceptance.conftest import System
from tests.conftest import IN_CI, wait_for
from tests.gateway import OWNER, SECRET, token
from tests.processes import MARK, processes_with

ROOT = Path(dream.__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DREAM = 7


def needs(program: str) -> str:
    """The program's path; without it the test is skipped, and in CI it fails."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        message = f"{program} is not installed"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
def place(environment: dict[str, str], tmp_path: Path) -> Iterator[Place]:
    place = Place(environment, tmp_path)
    yield place
    wait_for(lambda: not processes_with(place.mark), what="the end of every process")


class Place:
    """Where a test puts what the files expect under /etc, /opt and /var."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.mark = folder.name + folder.parent.name
        self.port = choose()
        self.env_file = folder / "dream.env"
        self.settings = {**environment, "DREAM_JWT_SECRET": SECRET, "DREAM_PORT": str(self.port)}
        self.settings["DREAM_TRUSTED_PROXIES"] = "127.0.0.1"
        self.env_file.write_text("".join(f'{name}="{value}"\n' for name, value in self.settings.items()))
        self.environment = {"PATH": os.environ["PATH"], MARK: self.mark}

    def filled_in(self, text: str) -> str:
        for name, path in {
            "/opt/dream/.venv/bin/": f"{Path(sys.executable).parent}/",
            "/opt/dream/": f"{ROOT}/",
            "/etc/dream/dream.env": str(self.env_file),
            "/var/lib/dream": str(self.folder),
            "/var/log/dream": str(self.folder),
            "user=dream": f"user={getpass.getuser()}",
        }.items():
            text = text.replace(name, path)
        return text


# --- settings


def test_the_environment_file_names_settings_only() -> None:
    lines = [line for line in (DEPLOY / "dream.env").read_text().splitlines() if line and not line.startswith("#")]
    names = {line.split("=", 1)[0] for line in lines}
    assert names <= {f"DREAM_{name}".upper() for name in Settings.model_fields}


def test_the_environment_file_has_no_key_that_everybody_knows() -> None:
    """A gateway started with an unedited file ends, for the variable is empty."""
    lines = (DEPLOY / "dream.env").read_text().splitlines()
    assert "DREAM_JWT_SECRET=" in lines


# --- Supervisor


class Supervisord:
    """A supervisord of this test with one of our files."""

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        programs = place.folder / name
        programs.write_text(place.filled_in((DEPLOY / "supervisor" / name).read_text()))
        self._config = place.folder / "supervisord.conf"
        socket = place.folder / "s.sock"
        self._config.write_text(
            f"[supervisord]\nlogfile={place.folder}/supervisord.log\npidfile={place.folder}/supervisord.pid\n"
            f"[unix_http_server]\nfile={socket}\n[supervisorctl]\nserverurl=unix://{socket}\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[include]\nfiles={programs}\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self._config)],
            env=place.environment,
            stdout=subprocess.DEVNULL,
        )

    def states(self) -> dict[str, str]:
        """Each program's state: RUNNING, STARTING, …"""
        rows = [line.split() for line in self.control("status").splitlines()]
        return {row[0]: row[1] for row in rows if len(row) > 1 and row[1].isupper()}

    def control(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self._config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False).stdout

    def await_running(self) -> None:
        def are_running() -> bool:
            states = self.states()
            return bool(states) and set(states.values()) == {"RUNNING"}

        wait_for(are_running, 60, lambda: f"every program's start: {self.states()} {self._logs()}")

    def _logs(self) -> str:
        return "\n".join(path.read_text() for path in self._place.folder.glob("*.log"))

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(70)


@pytest.fixture
def supervised(place: Place, request: pytest.FixtureRequest) -> Iterator[Supervisord]:
    supervised = Supervisord(place, request.param)
    yield supervised
    supervised.end()


@pytest.mark.parametrize("supervised", ["dream.conf", "dream-celery.conf"], indirect=True)
def test_supervisor_keeps_the_programs_up_and_stops_them_in_the_time_that_its_file_gives(
    supervised: Supervisord, system: System, slow_picture: bytes, jpeg: bytes, request: pytest.FixtureRequest
) -> None:
    supervised.await_running()
    done = system.producer.upload_images(DREAM, [{"name": "a.jpg", "data": jpeg}])
    assert system.await_end(done).state.value == "succeeded"

    [worker] = [name for name in supervised.states() if name.endswith("worker")]
    os.kill(int(supervised.control("pid", worker)), signal.SIGKILL)
    supervised.await_running()
    late = system.producer.upload_images(DREAM, [{"name": "b.jpg", "data": slow_picture}])
    wait_for(lambda: system.task(late).state.value != "queued", what="the start of the run")

    began = time.monotonic()
    supervised.control("stop", "all")
    took_s = time.monotonic() - began

    file = configparser.ConfigParser(interpolation=None)
    file.read(DEPLOY / "supervisor" / request.node.callspec.params["supervised"])
    programs = [file[section] for section in file.sections() if section.startswith("program:")]
    assert took_s < min(int(program["stopwaitsecs"]) for program in programs)
    assert set(supervised.states().values()) == {"STOPPED"}
    assert system.task(late).state.value in {"queued", "succeeded"}  # handed back, or ended in time


# --- systemd


def unit(path: Path) -> configparser.SectionProxy:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(path.read_text())
    return parsed["Service"]


def test_systemd_finds_nothing_wrong_with_the_units(place: Place) -> None:
    folder = place.folder / "units"
    folder.mkdir()
    for path in UNITS:
        (folder / path.name).write_text(place.filled_in(path.read_text()))
    found = sorted(map(str, folder.iterdir()))

    checked = subprocess.run(
        [needs("systemd-analyze"), "verify", "--man=no", *found], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


PARTS = [each for each in UNITS if each.stem != "dream-migrate"]


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_a_part_wants_the_migration_and_does_not_require_it(path: Path) -> None:
    """systemd restarts what requires a unit with that unit, and does not start it where that has failed."""
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and line[0] != "#")
    assert "dream-migrate.service" in lines["Wants"].split()
    assert "dream-migrate.service" in lines["After"].split()
    assert not {"Requires", "BindsTo", "PartOf"} & lines.keys()


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_what_a_unit_starts_works_and_ends_in_its_time(
    path: Path, place: Place, system: System, slow_picture: bytes
) -> None:
    """Started and stopped as systemd does: the environment file alone, SIGTERM to the main process."""
    service = unit(path)
    ready = place.folder / "ready"
    is_worker = path.stem.endswith("worker")
    process = subprocess.Popen(
        shlex.split(place.filled_in(service["ExecStart"])),
        env={**place.environment, **place.settings, "DREAM_READY_FILE": str(ready)},
        cwd=place.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(ready.exists, 40, "readiness")
        if is_worker:
            task = system.producer.upload_images(DREAM, [{"name": "b.jpg", "data": slow_picture}])
            wait_for(lambda: system.task(task).state.value != "queued", what="the start of the run")
        process.terminate()
        assert process.wait(int(service["TimeoutStopSec"])) == 0
    finally:
        process.kill()
        process.wait()
    if is_worker:
        assert int(service["TimeoutStopSec"]) >= Settings.model_fields["shutdown_timeout_s"].default + 15


# --- nginx


def test_nginx_lets_sockets_uploads_and_pictures_through(place: Place, system: System, jpeg: bytes) -> None:
    nginx = needs("nginx")
    port = choose(taken=[place.port])
    certificate = place.folder / "nginx.pem"
    certificate.write_text(new_certificate())
    site = (DEPLOY / "nginx" / "dream.conf").read_text()
    for name, value in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{place.port}",
        "/etc/ssl/dream/fullchain.pem": str(certificate),
        "/etc/ssl/dream/privkey.pem": str(certificate),
    }.items():
        assert name in site
        site = site.replace(name, value)
    config = place.folder / "nginx.conf"
    temporary = "".join(f"{kind}_temp_path {place.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    config.write_text(
        f"pid {place.folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ {temporary} uwsgi_temp_path {place.folder}/u; scgi_temp_path {place.folder}/c; access_log off;\n"
        f"{site}\n}}\n"
    )
    with system.database.begin() as session:
        give_to(session, DREAM, OWNER, "ann")
    commands = (
        [sys.executable, "-m", "dream", "gateway"],
        [sys.executable, "-m", "dream", "worker"],
        [nginx, "-c", str(config), "-p", str(place.folder), "-e", "stderr", "-g", "daemon off;"],
    )
    processes = [
        subprocess.Popen(command, env={**place.environment, **place.settings}, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    trust = ssl.create_default_context(cafile=str(certificate))
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as client:
            wait_for(lambda: _status(client, "/readyz") == 200, 40, "a gateway behind nginx")
            url = f"wss://127.0.0.1:{port}/ws/dream-images/{DREAM}/?token={token()}"
            with connect(url, ssl=trust) as socket:
                assert json.loads(socket.recv(10))["type"] == "connection_established"
                files = [("files", ("a.jpg", jpeg)), ("files", ("large.bmp", b"BM" + bytes(8_000_000)))]
                sent = client.post(
                    f"/api/dreams/{DREAM}/images", files=files, headers={"Authorization": f"Bearer {token()}"}
                )
                assert sent.status_code == 202, sent.text
                picture = wait_for(lambda: _completed(json.loads(socket.recv(30))), 60, "a completed picture")
            seen = client.get(f"/media/{picture['url'].split('/media/')[1]}")
            assert seen.status_code == 302
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(40)


def _status(client: httpx.Client, path: str) -> int:
    try:
        return client.get(path).status_code
    except httpx.HTTPError:
        return 0


def _completed(message: dict) -> dict | None:
    done = [image for image in message.get("images", []) if image.get("url")]
    return done[0] if done else None
