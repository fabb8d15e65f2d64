"""The whole stack as a user has it: `dream up`, a token, a page's calls and its socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.conftest import wait_for
from tests.processes import processes_with


class Stack:
    """A running `dream up`, and its settings as `dream env` prints them."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._log = (data.parent / "up.log").open("wb")
        command = [sys.executable, "-m", "dream", "up", "--port", "0", "--data", str(data)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), (data.parent / "up.log").read_text()
        self.url = line.split()[1]
        exports = self.dream("env", "--data", str(data))
        pairs = (line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
        self.variables = {name: value.strip("'") for name, value in pairs}

    def dream(self, *arguments: str) -> str:
        """Run the command against this stack; what it printed."""
        environment = {**os.environ, **getattr(self, "variables", {})}
        done = subprocess.run(
            [sys.executable, "-m", "dream", *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(15)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return code


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data = tmp_path_factory.mktemp("live") / "data"
    stack = Stack(data)
    yield stack
    assert stack.stop() == 0
    wait_for(lambda: not processes_with(str(data)), timeout_s=5, what="the end of every process of the stack")


def receive(socket: ClientConnection, until: str) -> list[dict[str, Any]]:
    """Messages up to the one of that status."""
    messages: list[dict[str, Any]] = []
    while not messages or messages[-1].get("status") != until:
        messages.append(json.loads(socket.recv(timeout=30)))
    return messages


def statuses(messages: list[dict[str, Any]]) -> list[str]:
    told = [message["status"] for message in messages if message["type"] == "image_update"]
    return list(dict.fromkeys(told))


@pytest.mark.slow
def test_a_page_uploads_watches_and_deletes(stack: Stack, jpeg: bytes) -> None:
    """REST and the socket through the real worker: processing, completed, gone; the picture is there in between."""
    token = stack.dream("token", "--user-id", "5", "--dream-id", "12")
    api = f"{stack.url}/api/dreams/12/images"
    headers = {"Authorization": f"Bearer {token}"}
    address = stack.url.replace("http", "ws") + f"/ws/dream-images/12/?token={token}"
    with connect(address) as socket, httpx.Client(headers=headers) as client:
        assert json.loads(socket.recv(timeout=10))["type"] == "connection_established"
        files = [("files", ("a.jpg", jpeg, "image/jpeg")), ("files", ("b.jpg", jpeg, "image/jpeg"))]
        accepted = client.post(api, files=files, data={"positions": ["4", "9"]})
        assert accepted.status_code == 202, accepted.text
        told = receive(socket, "completed")
        assert statuses(told) == ["processing", "completed"]
        assert [image["position"] for image in told[-1]["images"]] == [4, 9]
        listed = client.get(api).json()
        images = listed["images"] if isinstance(listed, dict) else listed
        urls = [image["url"] for image in images]
        assert urls == [image["url"] for image in told[-1]["images"]]
        # The socket and the list need a token; a picture's URL is its own permission.
        assert httpx.get(urls[0], follow_redirects=True).headers["content-type"] == "image/jpeg"

        socket.send(json.dumps({"type": "request_status"}))
        status = receive(socket, "completed")[-1]
        assert [image["url"] for image in status["images"]] == urls

        assert client.delete(f"{api}/{images[0]['id']}").status_code == 202
        assert statuses(receive(socket, "delete_completed")) == ["delete_processing", "delete_completed"]
        assert httpx.get(urls[0], follow_redirects=True).status_code == 404
        assert httpx.get(urls[1], follow_redirects=True).status_code == 200


@pytest.mark.slow
def test_an_older_client_authenticates_by_message(stack: Stack) -> None:
    token = stack.dream("token", "--user-id", "5", "--dream-id", "13")
    with connect(stack.url.replace("http", "ws") + "/ws/dream-images/13/") as socket:
        socket.send(json.dumps({"type": "authenticate", "token": f"Bearer {token}"}))
        established = json.loads(socket.recv(timeout=10))
    assert (established["type"], established["dream_id"]) == ("connection_established", 13)


@pytest.mark.slow
def test_secrets_are_in_no_log(stack: Stack, jpeg: bytes) -> None:
    """After a socket with a token, an upload and a presigned GET: no token, key, password or signature is written."""
    token = stack.dream("token", "--user-id", "6", "--dream-id", "14")
    with connect(stack.url.replace("http", "ws") + f"/ws/dream-images/14/?token={token}") as socket:
        headers = {"Authorization": f"Bearer {token}"}
        httpx.post(f"{stack.url}/api/dreams/14/images", headers=headers, files={"files": ("a.jpg", jpeg)})
        url = receive(socket, "completed")[-1]["images"][0]["url"]
    signed = httpx.get(url).headers["location"]
    variables = stack.variables
    secrets = [token, variables["DREAM_JWT_SECRET"], variables["DREAM_S3_SECRET_KEY"], signed.rpartition("=")[2]]
    secrets.append(variables["DREAM_BROKER_URL"].split(":")[2].partition("@")[0])
    logs = [*stack.data.glob("logs/*"), stack.data.parent / "up.log"]
    assert len(logs) > 4
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], log
