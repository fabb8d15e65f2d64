"""Choose loopback ports for the embedded servers: free now, and probably free at the next start.

The ports lie below the kernel's range for outgoing connections, so that no such connection occupies a port while its
server restarts. SeaweedFS listens on each of its ports and on that port + 10000 (gRPC): both must be free.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path

from dream.errors import StackError

__all__ = ["GRPC_OFFSET", "HOST", "choose", "is_free"]

HOST = "127.0.0.1"
#: SeaweedFS's gRPC port lies this much above its HTTP port.
GRPC_OFFSET = 10_000
_LOWEST_PORT = 10_240
_HIGHEST_PORT = 65_535
_FEWEST_PORTS = 1_000
_TRIES = 1_000


def is_free(port: int, *, with_grpc: bool = False) -> bool:
    """Whether a server could listen on the port (and on its gRPC port) now."""
    return all(_can_bind(each) for each in ((port, port + GRPC_OFFSET) if with_grpc else (port,)))


def choose(*, taken: Collection[int] = (), with_grpc: bool = False) -> int:
    """Choose a free port at random.

    Parameters:
      taken: ports of other servers; their gRPC ports count as taken too.
      with_grpc: the port + 10000 must be free too.

    Raises:
      StackError: no free port was found.
    """
    promised = {port + offset for port in taken for offset in (0, GRPC_OFFSET)}
    highest = _highest_port()
    for _ in range(_TRIES):
        port = random.randint(_LOWEST_PORT, highest)  # noqa: S311 (no secret)
        if promised.isdisjoint({port, port + GRPC_OFFSET}) and is_free(port, with_grpc=with_grpc):
            return port
    raise StackError("no free port was found on 127.0.0.1")


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it too: old connections that are still closing do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _highest_port() -> int:
    """The highest port whose gRPC port lies below the range for outgoing connections, if that leaves enough."""
    try:
        outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        outgoing = 0
    highest = outgoing - 1 - GRPC_OFFSET
    return highest if highest >= _LOWEST_PORT + _FEWEST_PORTS else _HIGHEST_PORT - GRPC_OFFSET
