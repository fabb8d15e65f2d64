"""The hostile set in the pool: real children with their limits, and good pictures beside it that nothing happens to."""

from __future__ import annotations

import multiprocessing
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import hostile
import many_parts
import pytest
from imaging_pictures import encoded, noise
from PIL import Image

from dream.errors import ImageRejected
from dream.imaging import Limits, Processed
from dream.imaging.pool import Pool

MEBIBYTE = 2**20
MOST_MEMORY_BYTES = 1024 * MEBIBYTE


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(Limits(), 2, 20, MOST_MEMORY_BYTES)
    pool.start()
    yield pool
    pool.stop()


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def all_files() -> dict[str, bytes]:
    named = hostile.BOMBS | hostile.NO_PICTURES | hostile.BROKEN | hostile.ODD | hostile.WILD
    return named | {make.__name__: make(MEBIBYTE) for make in many_parts.OF_MANY_PARTS}


def test_a_batch_of_hostile_files_harms_no_other_picture(tmp_path: Path, pool: Pool) -> None:
    """Each ends as a picture or refused, in the children that were there before; good ones come out as ever."""
    before = children()
    good = tmp_path / "good"
    good.write_bytes(encoded(noise(300, 200, 40), "PNG"))
    alone = tmp_path / "alone"
    pool.submit(good, alone).wait(lambda: None)
    jobs = {}
    for number, (name, data) in enumerate(all_files().items()):
        source = tmp_path / f"{number}.in"
        source.write_bytes(data)
        jobs[name] = pool.submit(source, tmp_path / f"{number}.out")
        jobs[f"good {number}"] = pool.submit(good, tmp_path / f"{number}.good")
    refused = {}
    for name, job in jobs.items():
        try:
            assert isinstance(job.wait(lambda: None, interval_s=1), Processed)
        except ImageRejected as error:
            refused[name] = str(error)
    assert not re.search(rf"{tmp_path}|Error|Traceback|\.py", " ".join(refused.values()))
    assert {*hostile.BOMBS, *hostile.NO_PICTURES, *hostile.BROKEN} <= refused.keys()
    assert not refused.keys() & hostile.ODD.keys()
    assert {path.read_bytes() for path in tmp_path.glob("*.good")} == {alone.read_bytes()}
    assert len(list(tmp_path.glob("*.good"))) == len(all_files())
    assert not list(tmp_path.glob("*~*")), "nothing is left of what was tried"
    assert children() == before
    assert max(map(peak_bytes, before)) < 400 * MEBIBYTE


def test_what_pillow_only_warns_of_is_an_error_in_a_child(tmp_path: Path, pool: Pool) -> None:
    """A GIF whose second frame reaches beyond its screen grows as it is played: its header has not said so."""
    one, other = Image.new("P", (64, 64), 1), Image.new("P", (64, 64), 2)
    data = encoded(one, "GIF", save_all=True, append_images=[other], duration=40)
    second = data.rindex(b",", 0, len(data) - 20)
    source = tmp_path / "source"
    source.write_bytes(data[: second + 5] + struct.pack("<HH", 12_000, 12_000) + data[second + 9 :])
    with pytest.raises(ImageRejected, match="far more pixels"):
        pool.submit(source, tmp_path / "target").wait(lambda: None)
