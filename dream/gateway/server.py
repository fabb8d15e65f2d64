"""Run the gateway: uvicorn around the application, in one process or in several, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from dream.errors import SettingsError
from dream.gateway.app import make_app
from dream.gateway.door import BACKLOG, Door, PerClient, most_connections, raise_open_files
from dream.gateway.headers import guarded
from dream.gateway.keys import Keys
from dream.gateway.protocol import GuardedConfig, HttpProtocol
from dream.gateway.workers import Alone, Board, Life, Member
from dream.log import get_logger
from dream.observe import exposition, sentry
from dream.work.presence import Presence, refuse_wrong_redis
from dream.work.process import exit_code
from dream.work.respawn import keep_all_running

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["run"]

#: The largest message of a client, which contains a token and a type.
_MAX_CLIENT_MESSAGE_BYTES = 16 * 1024
_SHUTDOWN_TIMEOUT_S = 5
#: A client or proxy that keeps a connection must end it earlier, else its next request may meet the end.
_IDLE_TIMEOUT_S = 5
#: Seconds after which a parent kills a process that was asked to stop: its connections to servers close meanwhile, too.
_KILLED_AFTER_S = 15
_ROUND_S = 1.0
_LOGGED_EVERY_S = 60.0
_ACCEPT_AGAIN_S = 1.0
#: Few, so that other processes on the port take their share.
_ACCEPTED_AT_ONCE = 16
#: Errors of `accept` where the machine or the process can open no more files.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = get_logger(__name__)


class _Server(uvicorn.Server):
    """Says when it serves. Each second it says that it lives, and checks the connections."""

    def __init__(self, config: GuardedConfig, life: Life) -> None:
        super().__init__(config)
        self._guarded, self._door, self._life = config, config.door, life
        self._rounds: asyncio.Task[None] | None = None
        self._acceptors: list[_Acceptor] = []

    def _make_protocol(self) -> asyncio.Protocol:
        return HttpProtocol(self._guarded, self.server_state, self.lifespan.state)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        if self.started:
            self._acceptors = [_Acceptor(listener, self._make_protocol) for listener in sockets or ()]
            self._life.serves()
            self._rounds = asyncio.create_task(self._do_rounds(), name="rounds")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._life.stops()
        for acceptor in self._acceptors:
            acceptor.close()
        await super().shutdown(sockets)
        if self._rounds is not None:
            self._rounds.cancel()

    async def _do_rounds(self) -> None:
        """Do the rounds by a timer of its own, because uvicorn's callback may come a minute late."""
        while True:
            self._life.goes_on()
            try:
                self._door.check()
            except Exception:
                log.exception("round_failed")  # the next round must still check deadlines
            await asyncio.sleep(_ROUND_S)


class _Acceptor:
    """Accepts connections. When no file can be opened, they wait in the kernel's queue.

    uvloop's own server drops them then, and may close its listener for good.
    """

    def __init__(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener, self._make_protocol = listener, make_protocol
        self._loop = asyncio.get_running_loop()
        self._new: set[asyncio.Task[Any]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._failures = 0
        self._logged_at = float("-inf")
        listener.setblocking(False)
        self._start()

    def _start(self) -> None:
        self._later = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._wait(error)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
            self._new.add(task)
            task.add_done_callback(self._new.discard)

    def _wait(self, error: OSError) -> None:
        """Try again in a second, and log that once a minute."""
        self._loop.remove_reader(self._listener)
        self._later = self._loop.call_later(_ACCEPT_AGAIN_S, self._start)
        self._failures += 1
        if time.monotonic() - self._logged_at >= _LOGGED_EVERY_S:
            log.error("accept_failed", error=error.strerror, count=self._failures, do="raise the limit of open files")
            self._failures, self._logged_at = 0, time.monotonic()

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listener)
        if self._later is not None:
            self._later.cancel()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the process's exit code.

    With several processes, this one opens the port, starts the others, and starts one again that dies. A new connection
    goes to any process that is free to take it.

    Raises:
      SettingsError: there is no usable key for tokens, the gateway cannot listen on its address, or Redis is a cluster.
    """
    refuse_wrong_redis(settings)
    count = settings.gateway_workers
    if count > 1 and sys.platform == "darwin":
        log.warning("gateway_workers_ignored", do="use Linux for several processes of one gateway")
        count = 1
    with _listen(settings) as listener:
        port = listener.getsockname()[1]
        if count == 1:
            _serve(settings, listener, Alone(settings, port))
            code = 0
        else:
            Keys(settings)  # without usable keys one error is enough
            board = Board(settings, port, count)
            code = keep_all_running(
                lambda number: exit_code(lambda: _serve(settings, listener, Member(board, number))),
                count,
                stop_timeout_s=_KILLED_AFTER_S,
                name="gateway",
                look=board.look,
                before_stop=listener.close,  # else new clients would wait for a process that takes none
            )
    log.info("gateway_stopped")
    return code


def _serve(settings: Settings, listener: socket.socket, life: Life) -> int:
    """Serve in this process."""
    sentry.set_up(settings)
    app = make_app(settings)
    if missing := app.state.services.authenticator.keys.missing_bytes():
        log.warning("jwt_secret_short", missing_bytes=missing, do="set a longer DREAM_JWT_SECRET")
    exposition.start(settings, "gateway")
    door = Door(settings, most_connections(settings, raise_open_files()))
    config = GuardedConfig(
        # Without a proxy the door has counted each client by its connection.
        guarded(PerClient(app, door) if settings.trusted_proxies else app, settings),
        door=door,
        settings=settings,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=BACKLOG,
        timeout_keep_alive=_IDLE_TIMEOUT_S,
        ws_max_size=_MAX_CLIENT_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # the rounds ping
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
    )
    # At level info uvicorn logs the URL of each socket, with its token.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(config, life)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # Before uvicorn has its own handlers, and after: it raises the signal again, which must not kill the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with Presence(settings, "gateway"):
        server.run([listener])
    return 0


def _listen(settings: Settings) -> socket.socket:
    host = settings.host
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, settings.port), family=family, backlog=BACKLOG)
        # Connections inherit it. asyncio sets it for sockets that name their protocol only, as this one does not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise SettingsError(
            f"DREAM_HOST={host!r} DREAM_PORT={settings.port} cannot be listened on: {error.strerror or error}"
        ) from None
