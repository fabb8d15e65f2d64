"""`dream demo`, and the main job by commands alone: up, env, upload, download, delete."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image
from PIL.ExifTags import IFD

from dream.stack.samples import draw
from dream.stack.servers import remove_weed_sockets
from dream.stack.state import DataFolder
from tests.commands import command, dream
from tests.conftest import wait_for
from tests.processes import MARK, processes_with

BUDGET_BYTES = 1_048_576
SAMPLES = ("landscape.jpg", "portrait-rotated.jpg", "logo.png")


@pytest.fixture
def mark() -> str:
    return uuid4().hex


@pytest.fixture
def data(tmp_path: Path, mark: str) -> Iterator[Path]:
    """A folder for a stack of which nothing may be left."""
    data = tmp_path / "data"
    yield data
    wait_for(lambda: not processes_with(mark), timeout_s=15, what="the end of every process")
    if state := DataFolder(data).load():
        remove_weed_sockets(state)


class Running:
    """A command that stays up, and what it has said so far."""

    def __init__(self, mark: str, folder: Path, *arguments: object) -> None:
        self._output = folder / f"{arguments[0]}.out"
        self._errors = folder / f"{arguments[0]}.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command(*arguments), env={**os.environ, MARK: mark}, stdout=output, stderr=errors
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def find(self, pattern: str) -> str:
        """The first group of the pattern, once it was said."""

        def said() -> re.Match[str] | bool | None:
            return re.search(pattern, self._output.read_text()) or self.process.poll() is not None

        found: Any = wait_for(said, timeout_s=60, what=pattern)
        assert isinstance(found, re.Match), self._output.read_text() + self._errors.read_text()
        return str(found[1])

    def interrupt(self) -> tuple[int, float]:
        """Ctrl-C: the exit code, and how long it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20), time.monotonic() - begun


@pytest.mark.slow
def test_the_demo_runs_once_and_again_on_the_same_data(data: Path, mark: str) -> None:
    """Exit 0 within 60 s, a line for each sample, nothing on standard error, and no process is left."""
    for _ in range(2):
        run = dream({MARK: mark}, "demo", "--once", "--port", 0, "--data", data)

        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stderr == ""
        for name in SAMPLES:
            told = rf"^  completed  {name}  \d+x\d+ px  [\d,]+ bytes\nhttp://127\.0\.0\.1:\d+/media/dreams/\S+$"
            assert len(re.findall(told, run.stdout, re.MULTILINE)) == 1
        assert "all 3 pictures are completed, listed and downloadable" in run.stdout
        assert "#dream=1" not in run.stdout  # the page is not there any more
        assert processes_with(mark) == []


@pytest.mark.slow
def test_the_demo_says_what_failed_and_exits_1(data: Path, mark: str) -> None:
    """Samples have more pixels than are allowed here: the demo must not call that a success."""
    run = dream({MARK: mark}, "demo", "--once", "--port", 0, "--data", data, DREAM_MAX_JPEG_PIXELS="1000")

    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("dream: the demo did not work: landscape.jpg is failed: ")


@pytest.mark.slow
def test_the_demo_stays_up_until_ctrl_c(data: Path, mark: str, tmp_path: Path) -> None:
    """The page answers and its link carries a token that lists the pictures; Ctrl-C stops all within 10 s."""
    with Running(mark, tmp_path, "demo", "--port", 0, "--data", data) as demo:
        url = demo.find(r"look at them: (http://\S+/)#")
        token = demo.find(r"#dream=1&token=(\S+)")
        assert demo.find(r"/ops#token=(\S+)") != token, "to sign out of the page would close /ops"
        demo.find("(Ctrl-C)")
        page = httpx.get(url, trust_env=False)
        listed = httpx.get(f"{url}api/dreams/1/images", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        code, took_s = demo.interrupt()

    assert page.status_code == 200
    assert sorted(image["filename"] for image in listed.json()) == sorted(SAMPLES)
    assert code == 0
    assert took_s < 10
    assert processes_with(mark) == []


def test_ctrl_c_while_the_demo_starts_stops_all_of_it(data: Path, mark: str, tmp_path: Path) -> None:
    """Interrupted before the pictures were through, `--once` does not claim success."""
    with Running(mark, tmp_path, "demo", "--once", "--port", 0, "--data", data) as demo:
        demo.find("(starting)")
        wait_for(lambda: len(processes_with(mark)) > 1, what="the stack's first process")
        code, took_s = demo.interrupt()

    assert code == 130
    assert took_s < 10
    wait_for(lambda: not processes_with(mark), timeout_s=1, what="the end of every process")


@pytest.mark.slow
def test_a_demo_that_is_killed_leaves_nothing_behind(data: Path, mark: str, tmp_path: Path) -> None:
    with Running(mark, tmp_path, "demo", "--port", 0, "--data", data) as demo:
        demo.find("(drawing)")
        demo.process.kill()
        demo.process.wait(10)
        wait_for(lambda: not processes_with(mark), timeout_s=5, what="the end of every process")


def exported(data: Path) -> dict[str, str]:
    """The variables that `eval "$(dream env)"` puts into a shell."""
    lines = dream({}, "env", "--data", data).stdout.splitlines()
    return dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in lines)


@pytest.mark.slow
def test_a_photo_goes_up_and_down_and_away_by_commands_alone(data: Path, mark: str, tmp_path: Path) -> None:
    """The URLs that `dream upload --wait` prints give upright pictures without a place, within the byte budget; after
    `dream delete --wait` the pictures are gone from their URLs and from the bucket."""
    sample = draw(tmp_path / "samples")[1]
    with Image.open(sample) as before:
        assert (before.width > before.height, bool(before.getexif().get_ifd(IFD.GPSInfo))) == (True, True)

    with Running(mark, tmp_path, "up", "--port", 0, "--data", data) as up:
        up.find(r"ready (http://\S+)")
        shell = {**exported(data), MARK: mark}

        upload = dream(shell, "upload", sample, "--dream-id", 7, "--wait")
        assert upload.returncode == 0, upload.stdout + upload.stderr
        *_, url = upload.stdout.splitlines()[1].split("\t")
        answer = httpx.get(url, follow_redirects=True, trust_env=False)
        object_url = str(answer.url)
        picture = Image.open(io.BytesIO(answer.content))

        image_id = dream(shell, "images", "--dream-id", 7).stdout.split("\t")[0]
        deletion = dream(shell, "delete", "--dream-id", 7, image_id, "--wait")
        # A gateway keeps a row for a second.
        wait_for(lambda: httpx.get(url, trust_env=False).status_code == 404, 5, "404 for the deleted picture")
        object_gone = httpx.get(object_url, trust_env=False)
        code, _ = up.interrupt()

    assert answer.status_code == 200
    assert picture.height > picture.width
    assert not picture.getexif()
    assert len(answer.content) <= BUDGET_BYTES
    assert (deletion.returncode, deletion.stdout.splitlines()[1]) == (0, f"{image_id}\tdeleted\t{sample.name}")
    assert object_gone.status_code == 404
    assert code == 0
