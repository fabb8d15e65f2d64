"""The object store behind a proxy that understands requests, and answers some of them itself."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.network import reset

__all__ = ["StoreFault", "StoreProxy"]


@dataclass
class StoreFault:
    """The fate of the requests that it fits.

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
        self.faults: list[StoreFault] = []
        self._lock = threading.Lock()
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self, "upstream": upstream})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @contextmanager
    def failing(self, *faults: StoreFault) -> Iterator[None]:
        """Inside, these faults."""
        self.released.clear()
        self.faults.extend(faults)
        try:
            yield
        finally:
            for fault in faults:
                self.faults.remove(fault)
            self.released.set()

    def fault_for(self, method: str, path: str) -> StoreFault | None:
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


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, but not a client that goes away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


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
        reset(self.connection)
