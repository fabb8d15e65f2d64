"""Messages to a service manager, and stuck loops that are found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dream.settings import Settings
from dream.work.notify import Pulse, notify, pings, status
from dream.work.process import show_life
from tests.conftest import wait_for
from tests.notify_socket import NotifySocket


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> NotifySocket:
    manager = NotifySocket()
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    return manager


def test_without_a_service_manager_nothing_is_sent() -> None:
    assert not notify("READY=1")


def test_a_socket_that_is_gone_and_an_address_of_another_kind_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for address in (str(tmp_path / "gone"), "vsock:2:1234", "relative"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify("READY=1")


def test_a_socket_in_the_file_system_and_an_abstract_one_are_reached(
    monkeypatch: pytest.MonkeyPatch, manager: NotifySocket
) -> None:
    assert notify("READY=1", "STATUS=here")
    assert manager.await_line("STATUS=here") == os.getpid()
    manager.close()

    path = Path(f"/tmp/dream-notify-{os.getpid()}")  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify("READY=1")
        assert listener.recv(100) == b"READY=1"
    path.unlink()


def test_a_full_socket_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, manager: NotifySocket) -> None:
    while notify("WATCHDOG=1"):
        pass
    assert manager.await_line("WATCHDOG=1")
    manager.close()


def test_a_status_is_one_line_and_is_sent_once(manager: NotifySocket) -> None:
    for text in ("first\nline", "first line", "second"):
        status(text)
    heard: list[str] = []
    manager.await_line("STATUS=second", heard=heard.append)
    assert heard == ["STATUS=first line"]
    manager.close()


@pytest.mark.parametrize(
    ("variables", "answer"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({"WATCHDOG_USEC": "1000000"}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getppid())}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, os.getppid() == 1),
    ],
)
def test_a_process_pings_if_the_watchdog_means_it_or_its_parent(variables: dict[str, str], answer: bool) -> None:
    assert pings(variables) is answer


def test_the_child_of_a_worker_that_a_shell_started_pings(manager: NotifySocket) -> None:
    """The shell is the main process, the worker's keeper its child, and the loop is in the child of the keeper."""
    code = (
        "from dream.settings import Settings; from dream.work import process, respawn;"
        "raise SystemExit(respawn.keep_running(lambda: process.show_life(Settings()) or 2, stop_timeout_s=1))"
    )
    shell = f"export WATCHDOG_PID=$$ WATCHDOG_USEC=1000000; {sys.executable} -c '{code}'; exit $?"
    done = subprocess.run(["sh", "-c", shell], env=os.environ.copy(), check=False, timeout=60)
    assert done.returncode == 2
    assert manager.await_line("WATCHDOG=1", 5) != os.getpid()
    manager.close()


def test_a_loop_is_stuck_when_it_has_not_moved_in_time_and_its_process_pings_no_more(
    monkeypatch: pytest.MonkeyPatch, manager: NotifySocket
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")  # half of it is shorter than 30 s
    pulse = Pulse(30)
    pulse.moved("sleeps", next_in_s=100)
    pulse.moved("hangs")
    show_life(Settings(), pulse, doing="works")
    manager.await_line("WATCHDOG=1")

    wait_for(pulse.stuck, what="a stuck loop")
    assert list(pulse.stuck()) == ["hangs"]
    show_life(Settings(), pulse, doing="works")
    manager.await_line("STATUS=stuck: hangs for ")
    assert manager.is_silent("WATCHDOG=1", 0.05)

    pulse.moved("hangs", next_in_s=100)
    show_life(Settings(), pulse, doing="works")
    manager.await_line("STATUS=works")
    manager.await_line("WATCHDOG=1")
    manager.close()
