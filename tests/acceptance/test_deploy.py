"""The files under deploy/, run for real: supervisord and nginx. `test_systemd.py` has the units."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import httpx
import pytest
from supervisor.xmlrpc import SupervisorTransport
from websockets.sync.client import connect

import dream
from dream.db.dreams import give_to
from dream.settings import Settings
from dream.stack.ports import choose
from dream.stack.servers import new_certificate
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.deployed import Place
from tests.gateway import OWNER, token
from tests.nginx import program

pytestmark = pytest.mark.slow

ROOT = Path(dream.__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DREAM = 7


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
        # A program that lives so long counts as started.
        text = re.sub(r"startsecs=\d+", "startsecs=2", (DEPLOY / "supervisor" / name).read_text())
        programs.write_text(place.filled_in(text))
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

        self._address = f"unix://{socket}"

    def states(self) -> dict[str, str]:
        """Each program's state: RUNNING, STARTING, …"""
        with contextlib.suppress(OSError):  # it has just been started
            return {name: program["statename"] for name, program in self._programs().items()}
        return {}

    def pid(self, name: str) -> int:
        return int(self._programs()[name]["pid"])

    def stop_all(self) -> None:
        self._ask("stopAllProcesses")

    def _programs(self) -> dict[str, Any]:
        return {program["name"]: program for program in self._ask("getAllProcessInfo")}

    def _ask(self, question: str) -> Any:
        """Ask as `supervisorctl` does, whose start would take half a second each time."""
        with ServerProxy("http://127.0.0.1", transport=SupervisorTransport(serverurl=self._address)) as server:
            return getattr(server.supervisor, question)()

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
    os.kill(supervised.pid(worker), signal.SIGKILL)
    supervised.await_running()
    late = system.producer.upload_images(DREAM, [{"name": "b.jpg", "data": slow_picture}])
    wait_for(lambda: system.task(late).state.value != "queued", what="the start of the run")

    began = time.monotonic()
    supervised.stop_all()
    took_s = time.monotonic() - began

    file = configparser.ConfigParser(interpolation=None)
    file.read(DEPLOY / "supervisor" / request.node.callspec.params["supervised"])
    programs = [file[section] for section in file.sections() if section.startswith("program:")]
    assert took_s < min(int(program["stopwaitsecs"]) for program in programs)
    assert set(supervised.states().values()) == {"STOPPED"}
    assert system.task(late).state.value in {"queued", "succeeded"}  # handed back, or ended in time


# --- nginx


def test_nginx_lets_sockets_uploads_and_pictures_through(place: Place, system: System, jpeg: bytes) -> None:
    nginx = program("nginx")
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

            assert _too_large(port, trust) == (413, "application/json", ["error", "code"])
            processes[0].terminate()
            processes[0].wait(40)
            away = client.get("/media/a.jpg")
            assert (away.status_code, away.headers["retry-after"], list(away.json())) == (503, "5", ["error", "code"])
            assert away.headers["content-type"] == "application/json"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(40)


def _too_large(port: int, trust: ssl.SSLContext) -> tuple[int, str | None, list[str]]:
    """Announce a body over nginx's limit, and read status, type and fields of the answer."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trust)
    with contextlib.closing(connection):
        connection.putrequest("POST", f"/api/dreams/{DREAM}/images")
        connection.putheader("Content-Length", str(2**30))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type"), list(json.loads(answer.read()))


def _status(client: httpx.Client, path: str) -> int:
    try:
        return client.get(path).status_code
    except httpx.HTTPError:
        return 0


def _completed(message: dict) -> dict | None:
    done = [image for image in message.get("images", []) if image.get("url")]
    return done[0] if done else None
