"""The gateway as a server: how it starts, whether it is ready, what it logs, its page, and addresses that are none."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from dream.settings import Settings
from tests.commands import dream, only_line
from tests.conftest import wait_for
from tests.gateway import DREAM, SECRET, Gateway, auth, receive, token


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DREAM_JWT_SECRET": ""}, "DREAM_JWT_SECRET is missing"),
        ({"DREAM_JWT_ALGORITHMS": "HS256,RS256"}, "DREAM_JWT_ALGORITHMS=HS256,RS256 is wrong"),
        ({"DREAM_JWT_ALGORITHMS": "XX1"}, "XX1 is not known"),
        ({"DREAM_PORT": "1", "DREAM_HOST": "192.0.2.1"}, "cannot be listened on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gateway_with_wrong_settings_does_not_start(
    environment: dict[str, str], variables: dict[str, str], expected: str
) -> None:
    """One line says what is wrong, before anything is served."""
    ended = dream(environment, "gateway", **{"DREAM_JWT_SECRET": SECRET, **variables})
    assert ended.returncode != 0
    assert only_line(ended.stderr).startswith("dream: ")
    assert expected in ended.stderr


def test_unknown_addresses_and_methods_are_json(gateway: Gateway) -> None:
    """Errors of the router are sentences in JSON, too; CORS is off."""
    for method, path, status in (("GET", "/nowhere", 404), ("PUT", "/healthz", 405), ("GET", "/static/x", 404)):
        answer = gateway.http.request(method, path, headers={"Origin": "http://elsewhere"})
        assert (answer.status_code, set(answer.json())) == (status, {"error", "code"})
        assert "access-control-allow-origin" not in answer.headers


def test_a_wrong_method_is_told_of_every_right_one(gateway: Gateway) -> None:
    """Allow has all methods of the address (RFC 9110, 10.2.1), not those of its first route."""
    allowed = {
        "/api/dreams/1/images": {"GET", "HEAD", "POST", "PATCH"},
        "/api/dreams/1/images/1": {"GET", "HEAD", "DELETE"},
    }
    for path, methods in allowed.items():
        answer = gateway.http.put(path)
        assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, methods)


def test_health_and_readiness(start: Callable[..., Gateway], settings: Settings) -> None:
    """`/healthz` says that the process is up; `/readyz` says which server is away, with Retry-After."""
    with start() as gateway:
        assert gateway.http.get("/healthz").json() == {"status": "ok"}
        assert gateway.http.get("/readyz").json() == {"status": "ok", "database": "ok", "redis": "ok", "bucket": "ok"}
    with start(s3_bucket="missing-bucket", redis_url="redis://127.0.0.1:1/0") as gateway:
        answer = gateway.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"] == "not ready: redis, bucket"
        assert answer.json()["database"] == "ok"


def test_the_next_answer_on_a_connection_is_not_held_back(gateway: Gateway) -> None:
    """Head and file are two packets: with Nagle's algorithm the second waits 40 ms for the client's acknowledgement."""

    def took_s() -> float:
        began = time.monotonic()
        answer = gateway.http.get("/static/index.html", headers={"Accept-Encoding": "identity"})
        assert answer.status_code == 200
        return time.monotonic() - began

    times = [took_s() for _ in range(60)]
    assert min(times[30:]) < 0.03  # a client acknowledges at once at first


def test_the_head_of_a_short_answer_comes_with_its_body(gateway: Gateway) -> None:
    """One system call less for each answer; a head whose body comes later is sent at once."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        for _ in range(50):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(10_000).endswith(b'{"status":"ok"}')
        bearer = auth()["Authorization"].encode()
        client.sendall(b"GET /api/dreams/%d/events HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % (DREAM, bearer))
        assert client.recv(10_000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_comes_before_the_refusal_of_the_next_request(gateway: Gateway, method: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(f"{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n".encode())
        with client.makefile("rb") as answers:
            assert re.findall(rb"HTTP/1.1 (\d+)", answers.read()) == [b"200", b"400"]


def test_the_log_never_shows_a_token(start: Callable[..., Gateway]) -> None:
    """Requests and sockets are logged by their path alone."""
    own = token()
    with start() as gateway:
        with gateway.socket(f"?token={own}") as websocket:
            receive(websocket)
        gateway.http.get(f"/healthz?token={own}")
        gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(own))
        wait_for(lambda: "socket_closed" in gateway.log.read_text())
        assert '"path": "/healthz"' in gateway.log.read_text()
        assert own not in gateway.log.read_text()
        assert own.split(".")[2] not in gateway.log.read_text()


def test_the_page_is_protected(gateway: Gateway) -> None:
    """The page runs no inline script and talks to nobody but its gateway and the picture store."""
    answer = gateway.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "<script>" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("page.js", "page.css"):
        assert gateway.http.get(f"/static/{name}").status_code == 200


#: The gateway, in whose loop nine tenths of each half second are taken.
BUSY = """
import signal, time
def take(*_): time.sleep(0.45)
signal.signal(signal.SIGALRM, take)
signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
from dream.gateway.server import run; from dream.log import configure; from dream.settings import load
configure(load()); raise SystemExit(run(load()))
"""


@pytest.mark.slow
def test_a_busy_gateway_shows_life(environment: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    """About once a second, also where the loop hardly gets to do anything: it is killed after a minute without."""
    ready = tmp_path / "ready"
    own = {**os.environ, **environment, "DREAM_JWT_SECRET": SECRET, "DREAM_READY_FILE": str(ready), "DREAM_PORT": "0"}
    process = subprocess.Popen([sys.executable, "-c", BUSY], env=own, stderr=subprocess.DEVNULL)
    try:
        wait_for(ready.exists, 60, "the gateway")
        touched = {ready.stat().st_mtime}

        def has_touched_thrice() -> bool:
            touched.add(ready.stat().st_mtime)
            return len(touched) > 3

        wait_for(has_touched_thrice, 60, "its signs of life")
        times = sorted(touched)
        assert min(after - before for before, after in pairwise(times)) < 3
    finally:
        process.terminate()
        process.wait(30)
