"""The data folder: private, locked, and the same from start to start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dream.errors import StackError
from dream.stack import ports
from dream.stack.state import SERVER_PORTS, DataFolder, State

HOLD_LOCK = """
import sys
from pathlib import Path
from dream.stack.state import DataFolder
with DataFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def test_a_state_that_was_saved_is_loaded_again_whole(folder) -> None:
    with folder.locked():
        state = State()
        state.settle_ports()
        folder.save(state)

        assert folder.load() == state
        assert set(state.ports) == set(SERVER_PORTS)


def test_the_folder_and_the_secrets_are_private_even_if_the_folder_was_open(folder) -> None:
    folder.path.mkdir(mode=0o755)
    with folder.locked():
        folder.save(State())

    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / "stack.json").stat().st_mode & 0o777 == 0o600


def test_secrets_differ_from_stack_to_stack_and_are_not_shown() -> None:
    one, two = State(), State()

    assert one.jwt_secret != two.jwt_secret
    assert one.valkey_password != two.valkey_password
    assert one.s3_secret_key != two.s3_secret_key
    assert one.jwt_secret not in repr(one)


def test_ports_stay_the_same_unless_somebody_else_holds_one() -> None:
    state = State()
    state.settle_ports()
    before = dict(state.ports)

    assert state.settle_ports() == []
    assert state.ports == before

    with socket.create_server((ports.HOST, before["valkey"])):
        assert state.settle_ports() == ["valkey"]
    assert state.ports["valkey"] != before["valkey"]
    assert state.ports | {"valkey": 0} == before | {"valkey": 0}


def test_a_folder_with_other_files_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tmp_path.chmod(0o755)

    with pytest.raises(StackError, match="has other files"), DataFolder(tmp_path).locked():
        pass

    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_damaged_state_is_one_clear_line(folder) -> None:
    with folder.locked():
        for text in ("{", "[]", '{"version": 1, "colour": "red"}', "{}"):
            (folder.path / "stack.json").write_text(text)
            with pytest.raises(StackError, match=r"stack\.json") as raised:
                folder.load()
            assert "\n" not in str(raised.value)


def test_a_folder_that_another_process_holds_is_refused_with_its_id(folder) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert folder.is_running()
        with (
            pytest.raises(StackError, match=f"already running on .* \\(process {holder.pid}\\); stop it"),
            folder.locked(),
        ):
            pass
        holder.kill()

    assert not folder.is_running()
    with folder.locked():
        assert folder.is_running()


def test_who_shares_the_descriptor_shares_the_lock(folder) -> None:
    with folder.locked() as lock:
        shared = os.dup(lock)
    try:
        assert folder.is_running()
    finally:
        os.close(shared)
    assert not folder.is_running()
