"""The contract of every staging area: the object store, and a folder that all processes share."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dream.errors import ObjectMissing, ObjectStoreUnavailable
from dream.messages.arguments import STAGING_PREFIX
from dream.settings import Settings
from dream.storage import StagingArea, Storage
from dream.storage.staging import StagingFolder

DATA = bytes(range(256)) * 1000


def area_of(settings: Settings) -> StagingArea:
    return StagingArea(settings, Storage(settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def in_folder(settings: Settings, folder: Path) -> StagingArea:
    return area_of(settings.model_copy(update={"staging_dir": str(folder)}))


@pytest.fixture
def in_store(settings: Settings) -> StagingArea:
    return area_of(settings)


@pytest.fixture(params=["in_store", "in_folder"])
def area(request: pytest.FixtureRequest) -> StagingArea:
    area: StagingArea = request.getfixturevalue(request.param)
    return area


def test_bytes_come_back_as_they_went_in(area: StagingArea, tmp_path: Path) -> None:
    key = area.put(DATA)
    area.fetch(key, tmp_path / "fetched")
    assert key.startswith(STAGING_PREFIX)
    assert (tmp_path / "fetched").read_bytes() == DATA


def test_what_was_fetched_outlives_the_staged_bytes(area: StagingArea, tmp_path: Path) -> None:
    """A picture that is deleted while it is in work does not pull the file from under the pool."""
    key = area.put(DATA)
    area.fetch(key, tmp_path / "fetched")
    assert area.delete([key]) == {}
    assert (tmp_path / "fetched").read_bytes() == DATA


def test_bytes_that_are_gone_are_said_to_be_missing(area: StagingArea, tmp_path: Path) -> None:
    key, other = area.put(DATA), area.put(DATA)
    assert area.delete([key]) == {}
    assert area.delete([key]) == {}
    with pytest.raises(ObjectMissing):
        area.fetch(key, tmp_path / "fetched")
    area.fetch(other, tmp_path / "other")


def test_listing_gives_every_key_and_when_it_was_written(area: StagingArea) -> None:
    keys = {area.put(DATA) for _ in range(3)}
    listed = dict(area.list_keys())
    assert listed.keys() == keys
    assert all(abs(datetime.now(UTC) - at) < timedelta(minutes=1) for at in listed.values())


def test_both_places_are_read_while_a_team_moves(in_store: StagingArea, in_folder: StagingArea, tmp_path: Path) -> None:
    """A key says where its bytes lie: setting `DREAM_STAGING_DIR` loses nothing that waits in the store."""
    old, new = in_store.put(b"old"), in_folder.put(b"new")
    for key, data in ((old, b"old"), (new, b"new")):
        in_folder.fetch(key, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == data
        (tmp_path / "fetched").unlink()
    assert dict(in_folder.list_keys()).keys() == {old, new}
    assert in_folder.delete([old, new]) == {}
    assert not dict(in_folder.list_keys())


def test_a_part_that_sees_another_folder_says_so_and_takes_nothing_for_missing(
    in_store: StagingArea, in_folder: StagingArea, settings: Settings, tmp_path: Path
) -> None:
    """No folder set, another one, one that is not mounted: an error that passes, not a picture that is gone."""
    key = in_folder.put(DATA)
    other = area_of(settings.model_copy(update={"staging_dir": str(tmp_path / "other")}))
    other.put(b"makes the folder")
    not_mounted = area_of(settings.model_copy(update={"staging_dir": str(tmp_path / "not-mounted")}))
    for area in (in_store, other, not_mounted):
        with pytest.raises(ObjectStoreUnavailable, match="DREAM_STAGING_DIR"):
            area.fetch(key, tmp_path / "fetched")
        assert list(area.delete([key])) == [key]
    in_folder.fetch(key, tmp_path / "fetched")


#: Processes that begin together, on a volume with hard links or without them. Some die at the call that is named.
BEGIN_TOGETHER = """
import os, pathlib, sys
from dream.errors import ObjectStoreUnavailable
from dream.storage.staging import StagingFolder

folder, links, dies_at, number = pathlib.Path(sys.argv[1]), sys.argv[2] == "links", sys.argv[3], int(sys.argv[4])

def refuse(*_):
    raise PermissionError(1, "Operation not permitted")

def die(*_, **__):
    os._exit(9)

if not links:
    os.link = refuse
wait, begin = os.pipe()
children = []
for each in range(number):
    if not (pid := os.fork()):
        os.close(begin)
        if dies_at and each % 2 == 0:
            setattr(os, dies_at, die)
        os.read(wait, 1)  # returns for all at once, when the parent closes the other end
        pathlib.Path(sys.argv[5], str(each)).write_text(StagingFolder(folder).put(b"%d" % each))
        os._exit(0)
    children.append(pid)
os.close(begin)
ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(*sorted(set(ends)))
"""


def begin_together(folder: Path, keys: Path, volume: str, *, dies_at: str = "", number: int = 24) -> str:
    """The ends of the processes; each that lived has left its key in `keys`."""
    keys.mkdir()
    command = [sys.executable, "-c", BEGIN_TOGETHER, str(folder), volume, dies_at, str(number), str(keys)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def all_are_read(folder: Path, keys: Path, target: Path) -> int:
    """The number of keys; each gives its own bytes back."""
    for path in keys.iterdir():
        StagingFolder(folder).fetch(path.read_text(), target)
        assert target.read_text() == path.name
        target.unlink()
    return len(list(keys.iterdir()))


@pytest.mark.parametrize("volume", ["links", "no links"])
@pytest.mark.slow
def test_processes_that_begin_together_agree_on_one_folder(folder: Path, tmp_path: Path, volume: str) -> None:
    """Windows's shares, FAT and what some clouds mount have no hard links; their word is "not permitted"."""
    for attempt in range(5):
        place, keys = folder / str(attempt), tmp_path / f"keys-{attempt}"
        assert begin_together(place, keys, volume) == "0"
        assert all_are_read(place, keys, tmp_path / "fetched") == 24


#: A process on a volume without hard links that waits at each rename until it is told to go on.
SLOW = """
import os, pathlib, sys
from dream.storage.staging import StagingFolder

def refuse(*_):
    raise PermissionError(1, "Operation not permitted")

def slow_rename(source, target, rename=os.rename):
    print("at a rename", flush=True)
    sys.stdin.readline()
    rename(source, target)

os.link, os.rename = refuse, slow_rename
print(StagingFolder(pathlib.Path(sys.argv[1])).put(b"slow"), flush=True)
"""


@pytest.mark.parametrize("slow_at", [1, 2])
def test_a_process_that_is_slow_while_it_names_the_folder_renames_nobody_elses(
    folder: Path, tmp_path: Path, slow_at: int
) -> None:
    """No time decides: however long it was stopped, what others have staged meanwhile stays readable."""
    command = [sys.executable, "-c", SLOW, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdin is not None
        assert slow.stdout is not None
        for _ in range(slow_at - 1):
            assert slow.stdout.readline() == "at a rename\n"
            print(file=slow.stdin, flush=True)
        assert slow.stdout.readline() == "at a rename\n"
        assert begin_together(folder, tmp_path / "keys", "no links", number=2) == "0"
        said, _ = slow.communicate("\n" * 9, timeout=30)
    StagingFolder(folder).fetch(said.split("\n")[-2], tmp_path / "slow")
    assert (tmp_path / "slow").read_bytes() == b"slow"
    assert all_are_read(folder, tmp_path / "keys", tmp_path / "fetched") == 2


@pytest.mark.parametrize("volume", ["links", "no links"])
@pytest.mark.parametrize("dies_at", ["mkdir", "open", "fsync", "rename", "link", "unlink"])
@pytest.mark.slow
def test_processes_that_die_while_they_name_the_folder_leave_one_that_works(
    folder: Path, tmp_path: Path, volume: str, dies_at: str
) -> None:
    """Every second one dies, at each call in turn. What the others stage is read, and so is what comes later."""
    begin_together(folder, tmp_path / "keys", volume, dies_at=dies_at, number=12)
    assert all_are_read(folder, tmp_path / "keys", tmp_path / "fetched") >= 6
    assert begin_together(folder, tmp_path / "later", volume, number=2) == "0"
    assert all_are_read(folder, tmp_path / "later", tmp_path / "fetched") == 2
    assert all_are_read(folder, tmp_path / "keys", tmp_path / "fetched") >= 6


@pytest.mark.parametrize("dies_at", ["mkdir", "fsync", "rename", "link"])
@pytest.mark.slow
def test_the_only_one_may_die_while_it_names_the_folder(folder: Path, tmp_path: Path, dies_at: str) -> None:
    """The id is settled and not yet written under its name, or not even settled: the next one goes on from there."""
    assert begin_together(folder, tmp_path / "none", "links", dies_at=dies_at, number=1) == "9"
    assert not (folder / "id").exists()
    assert begin_together(folder, tmp_path / "keys", "no links", number=4) == "0"
    assert all_are_read(folder, tmp_path / "keys", tmp_path / "fetched") == 4


def test_the_id_of_an_older_release_stays(folder: Path, tmp_path: Path) -> None:
    """It wrote the file `id` and nothing else."""
    folder.mkdir()
    (folder / "id").write_text("0123456789ab\n")
    assert begin_together(folder, tmp_path / "keys", "no links", number=4) == "0"
    assert all_are_read(folder, tmp_path / "keys", tmp_path / "fetched") == 4
    assert (folder / "id").read_text() == "0123456789ab\n"


def test_a_volume_that_was_unmounted_takes_no_uploads(in_folder: StagingArea, folder: Path) -> None:
    """Bytes in the empty folder below it would be out of everybody's sight once it is back."""
    in_folder.put(DATA)
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    with pytest.raises(ObjectStoreUnavailable):
        in_folder.put(DATA)
    assert list(folder.iterdir()) == []


def test_a_folder_on_another_disk_is_copied_from(in_folder: StagingArea, tmp_path: Path) -> None:
    """The work folder need not lie on the disk of the staging folder."""
    other_disk = Path("/dev/shm")
    if not other_disk.is_dir() or other_disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    target = other_disk / f"dream-test-{os.getpid()}"
    try:
        in_folder.fetch(in_folder.put(DATA), target)
        assert target.read_bytes() == DATA
    finally:
        target.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["../../etc/passwd", "id", "0" * 31, "0" * 33, "0" * 32 + "/x"])
def test_no_key_leads_out_of_the_folder(in_folder: StagingArea, folder: Path, tmp_path: Path, name: str) -> None:
    """Keys come from messages, and whoever can write one could name any file."""
    in_folder.put(DATA)
    folder_id = (folder / "id").read_text().strip()
    with pytest.raises(ObjectMissing):
        in_folder.fetch(f"{STAGING_PREFIX}folder-{folder_id}/{name}", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_two_that_make_the_folder_agree_on_its_id(folder: Path, tmp_path: Path) -> None:
    """Web layer and workers start together; whoever is first names it."""
    first, second = StagingFolder(folder), StagingFolder(folder)
    keys = first.put(b"1"), second.put(b"2")
    for key in keys:
        for each in (first, second):
            each.fetch(key, tmp_path / "fetched")
            (tmp_path / "fetched").unlink()
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_a_folder_that_is_replaced_by_another_takes_uploads(
    in_folder: StagingArea, folder: Path, tmp_path: Path
) -> None:
    """A web process that runs on goes by the folder that is there, not by the one that it saw first."""
    in_folder.put(b"old")
    folder.rename(folder.with_name("elsewhere"))
    StagingFolder(folder).put(b"made anew")
    key = in_folder.put(DATA)
    in_folder.fetch(key, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == DATA


@pytest.mark.parametrize("spoilt", [b"", b"../../x\n", b"\xff\xfe"])
def test_a_folder_whose_id_is_spoilt_is_an_outage(in_folder: StagingArea, folder: Path, spoilt: bytes) -> None:
    """No picture is taken for missing, and no upload is refused for good, since somebody can mend it."""
    folder.mkdir()
    (folder / "id").write_bytes(spoilt)
    with pytest.raises(ObjectStoreUnavailable):
        in_folder.put(DATA)
    assert not dict(in_folder.list_keys())
    assert [path.name for path in folder.iterdir()] == ["id"]


def test_nothing_is_left_of_an_upload_that_finds_no_room(folder: Path) -> None:
    """Each try of a full disk would leave a file that nobody removes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # writes fail as on a full disk
    try:
        with pytest.raises(ObjectStoreUnavailable):
            StagingFolder(folder).put(DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []


def test_looking_for_leftovers_writes_nothing(in_folder: StagingArea, folder: Path) -> None:
    """A folder that may only be read can be listed."""
    folder.mkdir()
    assert not dict(in_folder.list_keys())
    assert list(folder.iterdir()) == []
