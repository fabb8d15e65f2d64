"""Ports that are free now and stay out of the way of outgoing connections."""

from __future__ import annotations

import socket
from pathlib import Path

from dream.stack import ports


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_a_port_whose_grpc_port_is_taken_is_free_only_without_grpc() -> None:
    port = ports.choose(with_grpc=True)
    with socket.create_server((ports.HOST, port + ports.GRPC_OFFSET)):
        assert ports.is_free(port)
        assert not ports.is_free(port, with_grpc=True)


def test_a_chosen_port_can_be_listened_on_with_its_grpc_port() -> None:
    port = ports.choose(with_grpc=True)

    assert port < 55_535
    with (
        socket.create_server((ports.HOST, port)),
        socket.create_server((ports.HOST, port + ports.GRPC_OFFSET)),
    ):
        pass


def test_chosen_ports_never_meet_each_other_or_each_others_grpc_ports() -> None:
    chosen: list[int] = []
    for _ in range(50):
        chosen.append(ports.choose(taken=chosen, with_grpc=True))

    everything = [port + offset for port in chosen for offset in (0, ports.GRPC_OFFSET)]
    assert len(set(everything)) == len(everything)


def test_chosen_ports_lie_below_those_of_outgoing_connections_where_there_is_room() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = ports.choose(with_grpc=True)

    assert port + ports.GRPC_OFFSET < lowest or lowest < 21_241
