"""Several processes of one gateway on one port: all serve, the dead are replaced, and one signal ends all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from dream.gateway.workers import Board, Member
from dream.settings import Settings
from dream.work.presence import services_there
from tests.conftest import wait_for
from tests.gateway import DREAM, Gateway, closing_code, receive, token
from tests.integration.gateway.test_crowds import HANDSHAKE, plug
from tests.scraping import free_port, until


def processes_of(gateway: Gateway) -> set[int]:
    parent = gateway.process.pid
    return {int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


@contextmanager
def paused(process: int) -> Iterator[None]:
    """The process takes no connection."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.fixture
def pair(start: Callable[..., Gateway], tmp_path: Path) -> Iterator[tuple[Gateway, int]]:
    port = free_port()
    with start(gateway_workers="2", metrics_port=str(port), metrics_dir=str(tmp_path)) as gateway:
        yield gateway, port


def test_gateways_of_two_hosts_share_the_events_of_one_redis(gateway: Gateway, start: Callable[..., Gateway]) -> None:
    """The sockets of both get all events, in one order."""
    same = {"redis_prefix": gateway.settings.redis_prefix, "database_url": gateway.settings.database_url}
    with start(**same) as other, gateway.watching() as one, other.watching() as two:
        for number, publisher in enumerate((gateway, other, gateway, other)):
            publisher.publish(number)
        seen = [
            [(each["progress"], each["seq"]) for each in (receive(socket) for _ in range(4))] for socket in (one, two)
        ]
        assert seen[0] == seen[1]
        assert [number for number, _ in seen[0]] == [0, 1, 2, 3]


def test_two_processes_serve_one_port_as_one_gateway(pair: tuple[Gateway, int]) -> None:
    """Each has a socket of one dream: both get the events, are counted together, and hear the end of the gateway."""
    gateway, port = pair
    first, second = processes_of(gateway)  # the ready file was written when both served
    with ExitStack() as sockets:

        def connected(other: int) -> ClientConnection:
            with paused(other):
                return sockets.enter_context(gateway.watching())

        one, two = connected(other=second), connected(other=first)
        gateway.publish(40)
        assert [receive(each)["progress"] for each in (one, two)] == [40, 40]
        until(port, lambda now: now.sum("dream_sockets") == 2, "the sockets of both")
        assert len(services_there(gateway.settings)["gateway"]) == 2

        os.kill(first, signal.SIGKILL)
        assert closing_code(one) == 1006
        wait_for(lambda: len(processes_of(gateway) - {first}) == 2, what="another process in its place")
        [third] = processes_of(gateway) - {second}
        three = connected(other=second)
        gateway.publish(41)
        assert [receive(each)["progress"] for each in (two, three)] == [41, 41]

        gateway.process.terminate()
        assert {closing_code(two), closing_code(three)} == {1012}
        assert gateway.process.wait(20) == 0
        assert not any(Path(f"/proc/{each}").exists() for each in (second, third))


def test_a_gateway_that_stops_refuses_new_connections_at_once(pair: tuple[Gateway, int]) -> None:
    """A connection that nobody accepts keeps its client waiting. Here a peer that does not answer delays the end."""
    gateway, _ = pair
    with plug(gateway, HANDSHAKE.format(dream=DREAM, query=f"token={token()}").encode()) as silent:

        def hear(wanted: bytes) -> None:
            said = b""
            while wanted not in said:
                data = silent.recv(65536)
                assert data
                said += data

        def is_refused() -> bool:
            try:
                plug(gateway).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:
                pass
            assert gateway.process.poll() is None
            return False

        hear(b"connection_established")
        gateway.process.terminate()
        hear((1012).to_bytes(2, "big"))
        wait_for(is_refused, what="a refusal")
        assert processes_of(gateway)
    assert gateway.process.wait(20) == 0


def test_a_gateway_is_ready_when_all_its_processes_serve_and_alive_while_none_is_stuck(
    settings_of: Callable[..., Settings], environment: dict[str, str], tmp_path: Path
) -> None:
    """A process that starts again after its death is not stuck."""
    ready = tmp_path / "ready"
    board = Board(settings_of({**environment, "DREAM_READY_FILE": str(ready)}), 8000, 2)

    def is_alive() -> bool:
        os.utime(ready, (0, 0))
        board.look()
        return ready.stat().st_mtime > 0

    one, two = Member(board, 0), Member(board, 1)
    one.serves()
    board.look()
    assert not ready.exists()
    two.serves()
    board.look()
    assert ready.read_text() == "8000\n"
    assert is_alive()
    board.sign(1, time.monotonic() - 60)
    assert not is_alive()
    Member(board, 1)
    assert is_alive()
