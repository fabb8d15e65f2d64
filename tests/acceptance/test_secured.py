"""Pictures where little is open: Redis by TLS with a user of few rights, and PostgreSQL behind PgBouncer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import RedisError
from websockets.sync.client import connect as open_socket

from dream.db.dreams import give_to
from dream.settings import Settings
from dream.stack.ports import choose
from dream.storage import Storage
from dream.work.redis_client import connect
from tests import pgbouncer
from tests.acceptance.conftest import System
from tests.certificates import Certificates
from tests.commands import dream
from tests.conftest import IN_CI, environment_in, settings_from, wait_for
from tests.gateway import SECRET, token
from tests.processes import Parts

DREAM, USER = 7, 11
PASSWORD = uuid4().hex
DEPLOYMENT = (Path(__file__).resolve().parents[2] / "docs/deploy.md").read_text(encoding="utf-8")


class TlsRedis:
    """A Redis that asks for TLS and a client's certificate. Its users are dream's, as documented, and ours."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.certificates = Certificates.made_in(folder)
        self.port = choose()
        rule = next(line for line in DEPLOYMENT.splitlines() if line.startswith("user dream on"))
        rule = rule.replace("~dream", f"~{prefix}").replace("&dream", f"&{prefix}").replace("PASSWORD", PASSWORD)
        (folder / "users.acl").write_text(f"user default off\n{rule}\nuser admin on >{PASSWORD} ~* &* +@all\n")
        files = self.certificates
        options = {
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": files.server,
            "tls-key-file": files.server_key,
            "tls-ca-cert-file": files.ca,
            "bind": "127.0.0.1",
            "dir": folder,
            "aclfile": folder / "users.acl",
            "save": "",
            "appendonly": "yes",
        }
        arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        wait_for(self._answers, what="Redis")

    def url(self, user: str = "dream", **changes: object) -> str:
        files = self.certificates
        options = {"ssl_ca_certs": files.ca, "ssl_certfile": files.client, "ssl_keyfile": files.client_key, **changes}
        host = options.pop("host", "127.0.0.1")
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return f"rediss://{user}:{PASSWORD}@{host}:{self.port}/0?{query}"

    def denied(self) -> list[str]:
        """The calls that the server refused to dream's user."""
        with closing(connect(self.url("admin"), decode_responses=True)) as client:
            entries: Any = client.acl_log()
        return [f"{entry['reason']} {entry['object']}" for entry in entries if entry["username"] == "dream"]

    def _answers(self) -> bool:
        try:
            with closing(connect(self.url())) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def environment(servers: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return environment_in(tmp_path, servers)


@pytest.fixture
def secured(environment: dict[str, str], tmp_path: Path) -> Iterator[TlsRedis]:
    if shutil.which("redis-server") is None:
        (pytest.fail if IN_CI else pytest.skip)("redis-server is not installed")
    folder = tmp_path / "redis"
    folder.mkdir()
    server = TlsRedis(folder, environment["DREAM_REDIS_PREFIX"])
    yield server
    server.end()


@pytest.fixture
def settings(environment: dict[str, str], secured: TlsRedis, postgres_url: str, pgbouncer_port: int) -> Settings:
    environment |= {
        "DREAM_BROKER_URL": secured.url(),
        "DREAM_REDIS_URL": secured.url(),
        "DREAM_DATABASE_URL": pgbouncer.through(pgbouncer_port, postgres_url),
        "DREAM_DATABASE_PGBOUNCER": "true",
        "DREAM_JWT_SECRET": SECRET,
    }
    settings = settings_from(environment)
    Storage(settings).ensure_bucket(settings.s3_bucket)
    return settings


@pytest.mark.slow
def test_pictures_are_uploaded_shown_and_deleted(
    parts: Parts, system: System, secured: TlsRedis, environment: dict[str, str], jpeg: bytes
) -> None:
    with system.database.begin() as session:
        give_to(session, DREAM, USER, "olga")
    for command in ("worker", "scheduler"):
        parts.start(command)
    gateway = parts.start("gateway", DREAM_PORT="0")
    log = [json.loads(line) for line in parts.log_of(gateway).splitlines()]
    port = next(line["port"] for line in log if line["event"] == "gateway_ready")
    with open_socket(f"ws://127.0.0.1:{port}/ws/dream-images/{DREAM}/?token={token(USER, lasts_s=600)}") as socket:
        files = [{"name": f"{number}.jpg", "data": jpeg} for number in range(3)]
        task_id = system.producer.upload_images(DREAM, files, [0, 1, 2])
        assert system.await_end(task_id).state == "succeeded"
        wait_for(lambda: json.loads(socket.recv(timeout=20)).get("status") == "completed", what="the event")
    examined = dream(environment, "doctor")
    assert "worker" in examined.stdout
    assert PASSWORD not in examined.stdout + examined.stderr
    images = [{"id": image.id, "url": image.url} for image in system.images(task_id)]
    assert system.await_end(system.producer.delete_images(DREAM, images, "olga")).state == "succeeded"
    # `dream doctor` looks at the server's settings where it may.
    assert {each for each in secured.denied() if not each.startswith("command config")} == set()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ssl_ca_certs": ""}, "CERTIFICATE_VERIFY_FAILED"),
        ({"ssl_ca_certs": "other"}, "CERTIFICATE_VERIFY_FAILED"),
        ({"host": "localhost"}, "CERTIFICATE_VERIFY_FAILED"),
        ({"ssl_certfile": "", "ssl_keyfile": ""}, "EOF|required|closed|reset|alert"),
    ],
    ids=["no authority", "another authority", "another name", "no certificate of the client"],
)
def test_a_wrong_certificate_is_refused(secured: TlsRedis, change: dict[str, str], told: str) -> None:
    files = {name: secured.certificates.other if value == "other" else value for name, value in change.items()}
    with closing(connect(secured.url(**files))) as client, pytest.raises(RedisError, match=told):
        client.ping()
