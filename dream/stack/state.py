"""The data folder of a stack: lock, secrets and ports, kept from start to start.

<data>/              0700
  stack.lock         locked by `dream up` and every process of its stack; contains the process ID
  stack.json         0600: ports and secrets, created once
  variables.json     0600: the variables of the last stack
  dream.db           SQLite
  valkey/ weed/      the servers' data and configuration
  staging/           uploaded bytes that wait for their run
  logs/ run/         a log file and a ready file of each process
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dream.errors import StackError
from dream.stack import ports

__all__ = ["SERVER_PORTS", "DataFolder", "State"]

_VERSION = 1
#: The servers with a port (and the metrics of dream's services), and whether each also listens on the port + 10000.
SERVER_PORTS = {
    "valkey": False,
    "s3": True,
    "filer": True,
    "master": True,
    "volume": True,
    "admin": True,
    "metrics": False,
}
#: A killed stack ends within this time.
_LOCK_TIMEOUT_S = 2.0
_RELEASE_TIMEOUT_S = 0.5


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass(kw_only=True)
class State:
    """Ports and secrets of a stack."""

    ports: dict[str, int] = field(default_factory=dict)
    gateway_port: int = 8000
    valkey_password: str = field(default_factory=_secret, repr=False)
    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10), repr=False)
    s3_secret_key: str = field(default_factory=_secret, repr=False)
    jwt_secret: str = field(default_factory=_secret, repr=False)

    def settle_ports(self) -> list[str]:
        """Choose a port for each server without one, and for each whose port another program uses now.

        Returns:
          The names of the servers that moved to another port.
        """
        moved = []
        for name, with_grpc in SERVER_PORTS.items():
            port = self.ports.get(name)
            if port is not None and _is_released(port, with_grpc):
                continue
            if port is not None:
                moved.append(name)
            self.ports[name] = ports.choose(taken=self.ports.values(), with_grpc=with_grpc)
        return moved


class DataFolder:
    """The folder and the paths in it.

    Parameters:
      path: the folder; `locked` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.valkey = self.path / "valkey"
        self.weed = self.path / "weed"
        self.staging = self.path / "staging"
        self.database = self.path / "dream.db"
        self._lock = self.path / "stack.lock"
        self._state = self.path / "stack.json"
        self._variables = self.path / "variables.json"

    # --- the lock

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Lock the folder. Yield the lock's file descriptor: a process that inherits it shares the lock.

        Raises:
          StackError: another stack uses the folder, or it cannot be used.
        """
        self._make()
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def is_running(self) -> bool:
        """Whether a stack runs on this folder."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._lock.exists() and any(self.path.iterdir()):
                raise StackError(f"{self.path} has other files; name an empty or a new folder with --data")
            for folder in (self.path, self.logs, self.run, self.valkey, self.weed):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
            (self.path / ".gitignore").write_text("*\n")
        except OSError as error:
            raise StackError(f"{self.path} cannot be used as data folder: {error.strerror}") from error

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace")
            # A killed stack frees the lock in a moment, a living one does not.
            if _is_alive(holder) or time.monotonic() > deadline:
                raise StackError(
                    f"a stack is already running on {self.path} (process {holder or 'unknown'}); "
                    "stop it, or name another folder with --data"
                )
            time.sleep(0.02)

    # --- the state

    def load(self) -> State | None:
        """The saved state; None if there is none yet.

        Raises:
          StackError: the file is damaged.
        """
        try:
            kept = json.loads(self._state.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StackError(f"{self._state} cannot be read: {error}") from error
        try:
            if kept.pop("version") != _VERSION:
                raise StackError(f"another version of dream wrote {self._state}; name a new folder with --data")
            return State(**kept)
        except (AttributeError, KeyError, TypeError) as error:
            raise StackError(f"{self._state} is damaged ({error}); name a new folder with --data") from error

    def save(self, state: State) -> None:
        """Save the state. A reader sees the old or the new one, never half of it."""
        write_private(self._state, json.dumps({"version": _VERSION, **asdict(state)}, indent=2) + "\n")

    def save_variables(self, variables: Mapping[str, str]) -> None:
        """Save the variables of the running stack, for `dream env`."""
        write_private(self._variables, json.dumps(dict(variables), indent=2) + "\n")

    def load_variables(self) -> dict[str, str] | None:
        """The variables of the last stack; None if an older release started it."""
        try:
            kept = json.loads(self._variables.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StackError(f"{self._variables} cannot be read: {error}") from error
        return {str(name): str(value) for name, value in kept.items()}


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _is_released(port: int, with_grpc: bool) -> bool:
    """Whether the port is free, now or in a moment: the last server may still be ending."""
    deadline = time.monotonic() + _RELEASE_TIMEOUT_S
    while not ports.is_free(port, with_grpc=with_grpc):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
