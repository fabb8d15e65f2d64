"""The gateway's process: uvicorn around the application, quiet, bounded, and gone soon after SIGTERM."""

from __future__ import annotations

import logging
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from dream.errors import SettingsError
from dream.gateway.app import make_app
from dream.gateway.auth import missing_key_bytes
from dream.gateway.protocol import SocketProtocol
from dream.log import get_logger
from dream.process import say_ready, show_life

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["run"]

#: The largest message that a client may send: a token and a type.
_MAX_CLIENT_MESSAGE_BYTES = 64 * 1024
_SHUTDOWN_TIMEOUT_S = 5
_BACKLOG = 512

log = get_logger(__name__)


class _Server(uvicorn.Server):
    """Says so, in a file, once it serves."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = sockets[0].getsockname()[1] if sockets else self.config.port
            say_ready(self._settings, f"{port}\n")


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit code.

    Raises:
      SettingsError: there is no usable key to check tokens with, or the address cannot be listened on.
    """
    app = make_app(settings)
    if missing := missing_key_bytes(settings):
        log.warning("jwt_secret_short", missing_bytes=missing, do="set a longer DREAM_JWT_SECRET")
    config = uvicorn.Config(
        app,
        ws=SocketProtocol,
        ws_max_size=_MAX_CLIENT_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        callback_notify=lambda: _show_life(settings),
        timeout_notify=1,
    )
    # At info it logs the whole address of each socket, `?token=` in it.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # uvicorn raises the signal again when it has stopped: that is to be an orderly end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _already_stopped)
    with _listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        log.info("gateway_ready", host=host, port=port)
        _Server(config, settings).run([listener])
    log.info("gateway_stopped")
    return 0


async def _show_life(settings: Settings) -> None:
    show_life(settings)


def _already_stopped(_number: int, _frame: FrameType | None) -> None:
    return


def _listen(settings: Settings) -> socket.socket:
    host = settings.host
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"DREAM_HOST={host!r} DREAM_PORT={settings.port} cannot be listened on: {error.strerror or error}"
        ) from None
