"""A service manager's notify socket: what a process says there, and which process says it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from uuid import uuid4

import pytest

__all__ = ["NotifySocket"]

_CREDENTIALS = struct.Struct("3i")


class NotifySocket:
    """An abstract datagram socket that knows its senders, as systemd's does."""

    def __init__(self) -> None:
        name = f"dream-test-{uuid4().hex}"
        self.address = f"@{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name}")

    def close(self) -> None:
        self._socket.close()

    def await_line(self, wanted: str, timeout_s: float = 40.0, heard: Callable[[str], object] = lambda _: None) -> int:
        """Read until a line begins so; returns the sender's process id. `heard` gets every line before."""
        give_up = time.monotonic() + timeout_s
        said = []
        while (left_s := give_up - time.monotonic()) > 0:
            lines, pid = self._read(left_s)
            for line in lines:
                if line.startswith(wanted):
                    return pid
                heard(line)
                said.append(line)
        pytest.fail(f"{wanted} did not come within {timeout_s:g} s; it said {said[-9:]}")

    def is_silent(self, about: str, for_s: float) -> bool:
        """Whether no line begins so for that time; what came before the call does not count."""
        while self._read(0.001)[0]:
            pass
        give_up = time.monotonic() + for_s
        while (left_s := give_up - time.monotonic()) > 0:
            if any(line.startswith(about) for line in self._read(left_s)[0]):
                return False
        return True

    def _read(self, timeout_s: float) -> tuple[list[str], int]:
        self._socket.settimeout(timeout_s)
        try:
            data, sent_along, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        except TimeoutError:
            return [], 0
        [(_, _, credentials)] = sent_along
        return data.decode().splitlines(), _CREDENTIALS.unpack(credentials)[0]
