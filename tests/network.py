"""A network that fails, between a part of dream and a real server: connections cut, swallowed, or cut at COMMIT."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Proxy", "reset"]

_COMMIT = b"COMMIT\0"


class Proxy:
    """A TCP proxy on a port of its own, with the network in the test's hand.

    Parameters:
      upstream: host and port of the real server.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._open = threading.Event()
        self._open.set()
        self._refuses = False
        #: Whether a COMMIT that passes is cut, and whether only after it was answered.
        self._commits: tuple[Callable[[], bool], bool] | None = None
        #: Clients whose COMMIT the server has: its answer is for nobody.
        self._unanswered: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and each new one at once."""
        self._refuses = True
        self._end_all()

    def swallow(self) -> None:
        """Take everything and pass on nothing, in both directions."""
        self._open.clear()

    def restore(self) -> None:
        """Be a network again."""
        self._refuses = False
        self._open.set()

    @contextmanager
    def commits_cut(self, *, committed: bool, times: int | None = None, then_away: bool = False) -> Iterator[list[int]]:
        """Inside, cut connections at a PostgreSQL COMMIT: once it is answered, or instead of passing it on.

        Parameters:
          committed: which of the two.
          times: how many; None cuts at every one.
          then_away: nobody may connect after the first, inside.

        Yields:
          A list with one entry for each that was cut.
        """
        cuts: list[int] = []

        def is_cut() -> bool:
            with self._lock:
                if times is not None and len(cuts) >= times:
                    return False
                cuts.append(1)
                self._refuses = self._refuses or then_away
                return True

        self._commits = (is_cut, committed)
        try:
            yield cuts
        finally:
            self._commits = None
            self._refuses = self._refuses and not then_away

    def close(self) -> None:
        self.cut()
        self._open.set()
        self._listener.close()

    # --- threads

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                reset(client)
                continue
            try:
                server = socket.create_connection(self._upstream, timeout=5)
            except OSError:
                reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                if is_from_client and not self._passes_commit(source, data):
                    break
                if not is_from_client and target in self._unanswered and b"COMMIT" in data:
                    break
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                reset(end)
            with self._lock:
                self._sockets -= {source, target}
                self._unanswered -= {source, target}

    def _passes_commit(self, client: socket.socket, data: bytes) -> bool:
        """Whether the server is to get what a client sends, be it that the client is to get no answer."""
        commits = self._commits
        if commits is None or _COMMIT not in data:
            return True
        is_cut, committed = commits
        if not is_cut():
            return True
        if committed:
            self._unanswered.add(client)
        return committed

    def _end_all(self) -> None:
        with self._lock:
            for each in self._sockets:
                reset(each)
            self._sockets.clear()


def reset(connection: socket.socket) -> None:
    """Close with a reset, as a network that breaks does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
    connection.close()
