"""The gateway's process: uvicorn around the application, quiet, bounded, and gone soon after SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from dream.errors import SettingsError
from dream.gateway.app import make_app
from dream.gateway.auth import missing_key_bytes
from dream.gateway.door import BACKLOG, Door, PerClient, most_connections, raise_open_files
from dream.gateway.protocol import GuardedConfig
from dream.log import get_logger
from dream.presence import Presence, refuse_cluster
from dream.process import say_ready, show_life

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["run"]

#: The largest message that a client may send: a token and a type.
_MAX_CLIENT_MESSAGE_BYTES = 64 * 1024
_SHUTDOWN_TIMEOUT_S = 5
_ROUND_S = 1.0
_TOLD_EVERY_S = 60.0
#: Errors of `accept` where the machine or the process can open no more.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = get_logger(__name__)


class _Server(uvicorn.Server):
    """Creates the ready file once it serves. Each second it touches that file and checks the connections."""

    def __init__(self, config: GuardedConfig) -> None:
        super().__init__(config)
        self._settings, self._door = config.settings, config.door
        self._rounds: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_AcceptErrors())
        await super().startup(sockets)
        if self.started:
            port = sockets[0].getsockname()[1] if sockets else self.config.port
            say_ready(self._settings, f"{port}\n")
            self._rounds = asyncio.create_task(self._do_rounds(), name="rounds")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._rounds is not None:
            self._rounds.cancel()

    async def _do_rounds(self) -> None:
        """Do the rounds by a timer of our own: uvicorn's callback may come a minute late."""
        while True:
            show_life(self._settings)
            try:
                self._door.check()
            except Exception:
                log.exception("round_failed")  # deadlines must hold in the next one
            await asyncio.sleep(_ROUND_S)


class _AcceptErrors:
    """The loop's exception handler: it logs connections that cannot be accepted once a minute."""

    def __init__(self) -> None:
        self._count = 0
        self._told_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _EXHAUSTED or "accept" not in context["message"]:
            loop.default_exception_handler(context)
            return
        self._count += 1
        if time.monotonic() - self._told_at >= _TOLD_EVERY_S:
            log.error("accept_failed", error=error.strerror, count=self._count, do="raise the limit of open files")
            self._count, self._told_at = 0, time.monotonic()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit code.

    Raises:
      SettingsError: there is no usable key to check tokens with, or the address cannot be listened on, or
        Redis is a cluster.
    """
    app = make_app(settings)
    refuse_cluster(settings)
    if missing := missing_key_bytes(settings):
        log.warning("jwt_secret_short", missing_bytes=missing, do="set a longer DREAM_JWT_SECRET")
    door = Door(settings, most_connections(settings, raise_open_files()))
    config = GuardedConfig(
        PerClient(app, door),
        door=door,
        settings=settings,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=BACKLOG,
        ws_max_size=_MAX_CLIENT_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
    )
    # At info it logs the whole address of each socket, `?token=` in it.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # uvicorn raises the signal again when it has stopped: that is to be an orderly end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _already_stopped)
    with _listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        log.info("gateway_ready", host=host, port=port)
        with Presence(settings, "gateway"):
            _Server(config).run([listener])
    log.info("gateway_stopped")
    return 0


def _already_stopped(_number: int, _frame: FrameType | None) -> None:
    return


def _listen(settings: Settings) -> socket.socket:
    host = settings.host
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"DREAM_HOST={host!r} DREAM_PORT={settings.port} cannot be listened on: {error.strerror or error}"
        ) from None
