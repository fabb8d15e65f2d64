"""Servers that can be struck: a Valkey and a PostgreSQL that are killed and come back on the same port and files."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from psycopg import connect

from dream.stack import ports, servers
from dream.stack.state import DataFolder, State
from dream.stack.supervisor import Program
from tests.conftest import wait_for

__all__ = ["Postgres", "Valkey", "small_disk"]


class Valkey:
    """The broker of the cells of one pytest process.

    Parameters:
      folder: its append-only file, configuration and log.
    """

    def __init__(self, folder: Path) -> None:
        data = DataFolder(folder)
        with data.locked():
            state = data.load() or State()
            state.settle_ports()
            self._part: Program = servers.valkey(data, state)
        self.url = f"redis://:{state.valkey_password}@127.0.0.1:{state.ports['valkey']}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        part = self._part
        with part.log.open("ab") as log:
            self._process = subprocess.Popen(part.argv, env=part.env, cwd=part.cwd, stdout=log, stderr=log)
        assert part.is_ready is not None
        wait_for(part.is_ready, what="Valkey")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)


class Postgres:
    """A PostgreSQL of our own, run by the user `postgres` where we are root, for it refuses root.

    Parameters:
      folder: its data.
      programs: the folder of `initdb` and `postgres`.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self._data = folder / "data"
        self._programs = programs
        self.port = ports.choose(taken=())
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        initdb = ["initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(self._command(*initdb), check=True, capture_output=True, user=self._uid, cwd="/")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _uid(self) -> int | None:
        return self._user.pw_uid if self._user else None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create a database; returns its URL."""
        name = f"cell_{uuid4().hex[:12]}"
        with connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        options = f"-k {self._data} -h 127.0.0.1 -p {self.port} -c fsync=off -c max_connections=200"
        command = self._command("postgres", "-D", str(self._data), *options.split())
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=self._uid, cwd="/"
        )
        ready = self._command("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q")
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, what="PostgreSQL")

    def restart(self) -> None:
        """Immediate shutdown (every connection cut, nothing finished) and start."""
        self.stop()
        self.start()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._programs / program), *arguments]


@contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[Path]:
    """A tmpfs of that size, which root may mount."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "dream-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
