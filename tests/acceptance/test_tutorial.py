"""The tutorial's blocks, in their order: the shell's in one shell, the application in a file, the page in a browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import wait_for
from tests.processes import processes_with

PAGE = (Path(__file__).parents[2] / "docs/tutorial.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHELL = [text for language, _, text in BLOCKS if language == "sh"]
#: Printed by the shell after each block, with its exit code.
_DONE = "block done"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Shell:
    """A shell that stays open, with the tutorial's ports changed to free ones."""

    def __init__(self, folder: Path) -> None:
        self.gateway, self.site = free_ports(2)
        self.output = folder / "shell.out"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                ["bash", "-m"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={name: value for name, value in os.environ.items() if not name.startswith("DREAM_")},
                start_new_session=True,
            )
        self._blocks = 0

    def run(self, block: str) -> str:
        """Run a block to its end; returns all that it printed."""
        text = block.replace("8000", str(self.gateway)).replace("8001", str(self.site))
        before = len(self.shown())
        self._blocks += 1
        done = f"{_DONE} {self._blocks}: "
        assert self._process.stdin
        self._process.stdin.write(f"{{ {text}\n}}; echo '{done}'$?\n".encode())
        self._process.stdin.flush()
        wait_for(lambda: re.search(f"{done}\\d", self.shown()), 60, self.shown)
        printed = self.shown()[before:]
        assert f"{done}0\n" in printed, printed
        return printed

    def shown(self) -> str:
        return self.output.read_text(errors="replace")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture
def shell(tmp_path: Path, jpeg: bytes) -> Iterator[Shell]:
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    shell = Shell(tmp_path)
    yield shell
    shell.close()
    for pid in processes_with(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_the_album_of_the_tutorial_shows_photos_as_they_are_finished(
    shell: Shell, browser: Browser, tmp_path: Path
) -> None:
    install, up, env, serve, curl, look, stop = SHELL
    (app,) = [text for language, _, text in BLOCKS if language == "python"]
    assert "pip install '/path/to/dream[embedded]'" in install  # this environment is one that it made
    (tmp_path / "app.py").write_text(app)
    shell.run(f"PATH={Path(sys.executable).parent}:$PATH")
    shell.run(up)
    wait_for(lambda: f"ready http://127.0.0.1:{shell.gateway}" in shell.shown(), 60, shell.shown)
    shell.run(env)
    shell.run(serve.replace("8001", str(shell.site)))
    wait_for(lambda: "Uvicorn running" in shell.shown(), 30, shell.shown)

    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{shell.site}/")
    page.set_input_files("input", [tmp_path / "photo.jpg"])
    expect(page.locator("main img")).to_have_count(1, timeout=30_000)
    assert page.locator("main img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.close()

    assert "task_id" in shell.run(curl.splitlines()[0])
    wait_for(lambda: shell.run("dream images --dream-id 1 --json").count('"state": "completed"') == 2, 30, shell.shown)
    assert shell.run(curl.splitlines()[1]).count("photo.jpg") == 2
    assert "cleanup-expired-tokens" in shell.run(look)
    shell.run(stop)
    wait_for(lambda: not processes_with(str(tmp_path / ".dream")), 60, shell.shown)
