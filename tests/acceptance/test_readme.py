"""Every command in the README is run here, as a reader would: in its order, in a shell, against a real stack."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.processes import processes_with

README = Path(__file__).parents[2] / "README.md"
#: Run by others: `make test` is what runs this, and `make demo` is `dream demo` after an install, which
#: `test_demo.py` runs.
ELSEWHERE = {"make demo", "make test"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def commands(block: str) -> list[str]:
    """The lines of a block without their remarks."""
    return [line for text in block.splitlines() if (line := re.sub(r"\s+#.*", "", text).strip())]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def folder(tmp_path: Path, jpeg: bytes) -> Path:
    """The reader's folder: the environment of this test run, and a photo."""
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    return tmp_path


def test_the_commands_of_the_readme_are_known() -> None:
    """A block that no test runs cannot be added unseen."""
    assert len(blocks("sh")) == 3
    assert set(commands(blocks("sh")[0])) == ELSEWHERE


@pytest.mark.slow
def test_the_shell_session_works_as_printed(folder: Path) -> None:
    """From `dream up` to `kill %1`, each command's exit code checked by the shell; only the port is another one."""
    session = blocks("sh")[1].replace("8000", str(free_port()))
    up, rest = re.split(r"(?<=&)[^\n]*\n", session, maxsplit=1)
    ready = "while ! grep -qs '^ready' up.out; do kill -0 %1 || exit 1; sleep 0.1; done\n"
    script = f"set -e -m\n{up.rstrip(' &')} > up.out 2> up.err &\n{ready}{rest}wait %1\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=100, start_new_session=True
    )
    try:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(folder / 'up.err').read_text()[-2000:]}"
        assert "photo.jpg" in done.stdout
        assert "/media/dreams/" in done.stdout
    finally:
        for pid in processes_with(str(folder)):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_the_parts_of_production_start_as_printed(folder: Path, environment: dict[str, str], servers: object) -> None:
    """Each part by each of its names takes work, and leaves at SIGTERM with exit code 0."""
    lines = blocks("sh")[2].splitlines()
    variables = {**os.environ, **environment, "DREAM_PORT": str(free_port())}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    names = [[part.strip() for part in re.split(r"#?\s*(?:,\s*)?or:", line)] for line in lines if line]
    assert [each[0].partition("#")[0].strip() for each in names] == [
        "dream migrate",
        "dream worker",
        "dream scheduler",
        "dream gateway",
    ]
    subprocess.run(["dream", "migrate"], env=variables, cwd=README.parent, check=True, timeout=60, capture_output=True)
    for command in [name.partition("#")[0].strip() for each in names[1:] for name in each]:
        ready = folder / f"ready {command}".replace("/", "-")
        with (folder / "part.log").open("wb") as log:
            process = subprocess.Popen(
                command.split(),
                env={**variables, "DREAM_READY_FILE": str(ready)},
                cwd=README.parent,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(lambda ready=ready, process=process: ready.exists() or process.poll(), what=command)
            assert ready.exists(), (folder / "part.log").read_text()
        finally:
            process.terminate()
            code = process.wait(20)
            assert code == 0, f"{command}: {(folder / 'part.log').read_text()}"
