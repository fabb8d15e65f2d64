"""The folder of a worker process: its own while it lives, and removed by others only after that."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

from dream.actors.work_folder import WorkFolder, remove_abandoned

MAKES_ONE_AND_DIES = """
import os, sys
from pathlib import Path
from dream.actors.work_folder import WorkFolder
WorkFolder(Path(sys.argv[1])).path()
os._exit(9)
"""


def test_the_folder_of_a_process_that_died_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    mine = WorkFolder(tmp_path)
    subprocess.run([sys.executable, "-c", MAKES_ONE_AND_DIES, str(tmp_path)], check=False)
    mine.path()
    assert len(list(tmp_path.iterdir())) == 2
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [mine.path()]
    mine.remove()


def test_a_new_folder_is_never_taken_for_an_abandoned_one(tmp_path: Path) -> None:
    """While others start and look, at whatever moment."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            remove_abandoned(tmp_path)

    others = [threading.Thread(target=look) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(200):
            folder = WorkFolder(tmp_path)
            with folder.of_run() as inside:
                assert inside.is_dir()
                assert folder.path() in inside.parents
            folder.remove()
    finally:
        done.set()
        for other in others:
            other.join()


def test_a_folder_that_a_cleaner_took_is_made_again_and_is_as_safe(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    shutil.rmtree(folder.path())
    with folder.of_run() as inside:
        remove_abandoned(tmp_path)
        assert inside.is_dir()
    folder.remove()
    assert not list(tmp_path.iterdir())


def test_a_lock_alone_that_a_cleaner_took_is_made_again(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    (folder.path() / "lock").unlink()
    assert (folder.path() / "lock").exists()
    remove_abandoned(tmp_path)
    assert folder.path().exists()
    folder.remove()
