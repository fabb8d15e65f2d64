"""Two lanes of real children: a lone picture overtakes a busy group's, and goes first for the processor."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dream.imaging import Limits
from dream.imaging.lanes import Lanes
from dream.imaging.pool import Pool

NICENESS = 7


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(*(Pool(Limits(), 1, 60, 4 * 2**30, niceness=each) for each in (NICENESS, 0)))
    lanes.start()
    yield lanes
    lanes.stop()


def idle() -> None:
    """A waiter that has nothing else to do."""


def test_a_lone_picture_overtakes_a_busy_groups_pictures(lanes: Lanes, tmp_path: Path) -> None:
    picture, endless = tmp_path / "picture.png", tmp_path / "endless"
    Image.new("RGB", (300, 200), "teal").save(picture)
    os.mkfifo(endless)  # nobody writes to it, so a child waits for ever
    first = lanes.submit(endless, tmp_path / "first", group="busy")  # the group is idle: express
    second = lanes.submit(endless, tmp_path / "second", group="busy")
    behind = lanes.submit(picture, tmp_path / "behind", group="busy")
    first.cancel()

    assert lanes.submit(picture, tmp_path / "lone", group="other").wait(idle).width_px == 300
    assert not (tmp_path / "behind").exists()

    second.cancel()
    assert behind.wait(idle).width_px == 300


def test_two_lone_pictures_at_once_do_not_wait_for_each_other(lanes: Lanes, tmp_path: Path) -> None:
    picture, endless = tmp_path / "picture.png", tmp_path / "endless"
    Image.new("RGB", (300, 200), "teal").save(picture)
    os.mkfifo(endless)
    first = lanes.submit(endless, tmp_path / "first", group="one")
    second = lanes.submit(picture, tmp_path / "second", group="another")  # the first has not begun yet
    give_up = time.monotonic() + 20

    def poll() -> None:
        assert time.monotonic() < give_up

    assert second.wait(poll).width_px == 300
    first.cancel()


def test_children_of_the_busy_lane_are_nice(lanes: Lanes) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found = sorted(os.getpriority(os.PRIO_PROCESS, each.pid or 0) for each in multiprocessing.active_children())
    assert found == [own, own + NICENESS]
