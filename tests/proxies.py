"""A network that fails, between a part of dream and a real server: connections cut, swallowed, or cut at COMMIT.

`Proxy` moves bytes; `StoreProxy` understands requests, and answers some of them itself.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Fault", "Proxy", "StoreProxy"]

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
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._upstream, timeout=5)
            except OSError:
                _reset(client)
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
                _reset(end)
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
                _reset(each)
            self._sockets.clear()


def _reset(connection: socket.socket) -> None:
    """Close with a reset, as a network that breaks does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
    connection.close()


# --- the object store


@dataclass
class Fault:
    """What becomes of the requests that it fits.

    Parameters:
      method, part: the request's method, and what its path or query holds.
      status: answered instead of passing it on; 0 passes it on.
      body: of that answer.
      hangs: take the request and answer nothing until the fault is taken away.
      resets: send half of the answer (or take half of a PUT's body), then break the connection.
      times: so many requests, then no more.
    """

    method: str
    part: str = ""
    status: int = 0
    body: str = ""
    hangs: bool = False
    resets: bool = False
    times: int = 10**9
    hits: int = 0


class StoreProxy:
    """An HTTP proxy before the object store; signatures hold, for they cover the host that the client named.

    Parameters:
      upstream: host and port of the store.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self.released = threading.Event()
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy, Handler.upstream = proxy, upstream
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """Inside, these faults."""
        self.released.clear()
        self.faults.extend(faults)
        try:
            yield
        finally:
            for fault in faults:
                self.faults.remove(fault)
            self.released.set()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:  # each request has a thread
            for fault in self.faults:
                if fault.method == method and fault.part in path and fault.hits < fault.times:
                    fault.hits += 1
                    return fault
        return None

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: StoreProxy
    upstream: tuple[str, int]

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self) -> None:
        fault = self.proxy.fault_for(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault is not None and fault.resets and self.command == "PUT":
            self.rfile.read(length // 2)
            self._break()
            return
        body = self.rfile.read(length)
        if fault is not None and fault.hangs:
            self.proxy.released.wait(60)
            self._break()
        elif fault is not None and fault.status:
            self._answer(fault.status, [("Content-Type", "application/xml")], fault.body.encode())
        else:
            self._pass_on(body, half=fault is not None and fault.resets)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 (the names that the server calls)

    def _pass_on(self, body: bytes, *, half: bool) -> None:
        connection = http.client.HTTPConnection(*self.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"expect", "connection"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            headers = [(n, v) for n, v in response.getheaders() if n.lower() not in {"transfer-encoding", "connection"}]
            self._answer(response.status, headers, response.read(), half=half)
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, half: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self._break()

    def _break(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        _reset(self.connection)
