"""`dream up`: run servers and services in the foreground, in order.

lock ─► ports ─► Valkey ∥ SeaweedFS ∥ (own servers, migrations, bucket) ─► worker ∥ scheduler ∥ gateway ─► "ready"
stop: gateway, scheduler, worker (at once, signalled in this order), then the servers
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dream.errors import StackError
from dream.log import redact
from dream.stack import environment, ports, servers
from dream.stack.logs import Follower
from dream.stack.state import DataFolder, State
from dream.stack.supervisor import Program, Stopped, Supervisor

__all__ = ["SERVICES", "Stack", "import_flags", "running_variables", "servers_only"]

log = logging.getLogger(__name__)

SERVICES = ("gateway", "scheduler", "worker")
_SERVERS = ("valkey", "weed")
#: Valkey may take this long to read its append-only file.
_READY_TIMEOUT_S = 120.0
#: Services have DREAM_SHUTDOWN_TIMEOUT_S=4 and the servers 3 s after that, so all stops within 10 s.
_SERVICE_STOP_TIMEOUT_S = 5.5
#: A service touches its ready file every second.
_HUNG_AFTER_S = 60.0
#: Time for a hung gateway to answer `/healthz`; a busy one takes long.
_ANSWER_TIMEOUT_S = 20.0


class Stack:
    """Valkey, SeaweedFS and dream's services on one data folder.

    Parameters:
      data: the data folder; created if it is missing.
      port: the gateway's port; 0 chooses one.
      services: a selection of `SERVICES`; empty means the servers alone.
    """

    def __init__(self, data: Path, *, port: int = 8000, services: Sequence[str] = SERVICES) -> None:
        self._folder = DataFolder(data)
        self._port = port
        self._services = tuple(services)

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Start everything, keep it running until SIGTERM or SIGINT, and stop it.

        Parameters:
          on_ready: called once, with the gateway's URL.

        Raises:
          StackError, SettingsError: the stack cannot start; no process of it is left.
        """
        follower = Follower(sys.stderr.buffer)
        with self._folder.locked() as lock:
            before = self._folder.load()
            embedded = environment.embedded_values(self._folder, before) if before else {}
            own = environment.own_values(os.environ, embedded)
            state = self._settle()
            supervisor = Supervisor(keep_open=[lock], on_step=follower.copy)
            try:
                with supervisor.signals(), _stopping(supervisor, state):
                    self._start(supervisor, state, own, follower)
                    on_ready(environment.gateway_url(state))
                    supervisor.run()
            except Stopped:
                return

    def _settle(self) -> State:
        """The saved state, with ports that are free now."""
        state = self._folder.load() or State()
        for name in state.settle_ports():
            log.warning("another program uses the port of %s; it moves to port %d", name, state.ports[name])
        if self._port == 0:
            state.gateway_port = ports.choose(taken=state.ports.values())
        else:
            state.gateway_port = self._port
            if "gateway" in self._services and not ports.is_free(self._port):
                raise StackError(
                    f"port {self._port} is taken; choose another: --port N with `dream`, or make demo ARGS='--port N'"
                )
        self._folder.save(state)
        return state

    def _start(self, supervisor: Supervisor, state: State, own: Mapping[str, str], follower: Follower) -> None:
        variables = environment.complete(own, environment.embedded_values(self._folder, state))
        # One port for all services: they count together.
        metrics_port = os.environ.get("DREAM_METRICS_PORT") or str(state.ports["metrics"])
        variables |= {"DREAM_METRICS_PORT": metrics_port, "DREAM_METRICS_DIR": str(self._folder.run)}
        self._folder.save_variables(environment.printed(os.environ, variables))
        if environment.uses_valkey(own):
            supervisor.start(servers.valkey(self._folder, state))
        if environment.uses_seaweedfs(own):
            supervisor.start(servers.weed(self._folder, state))
        env = environment.for_process(os.environ, variables)
        if self._services:
            prepare = self._program("prepare", ["-m", "dream.stack.prepare"], env)
            supervisor.run_once(prepare, timeout_s=_READY_TIMEOUT_S)
        supervisor.wait_ready(timeout_s=_READY_TIMEOUT_S)
        _log_servers(own)
        if metrics_port != "0":
            log.info("metrics: http://%s:%s/metrics", ports.HOST, metrics_port)
        for name in reversed(self._services):
            service = self._program(name, ["-m", "dream", name], env)
            follower.add(service.log)
            supervisor.start(service)
        supervisor.wait_ready(timeout_s=_READY_TIMEOUT_S)

    def _program(self, name: str, arguments: list[str], env: dict[str, str]) -> Program:
        ready_file = self._folder.run / f"{name}.ready"
        is_ready: Callable[[], bool] = ready_file.exists
        answers = None
        if name == "gateway":
            port = int(env["DREAM_PORT"])
            is_ready = partial(servers.answers, port, "/readyz")
            answers = partial(servers.answers, port, "/healthz", timeout_s=_ANSWER_TIMEOUT_S)
        return Program(
            name=name,
            argv=[sys.executable, *import_flags(), *arguments],
            env={**env, "DREAM_READY_FILE": str(ready_file)},
            cwd=Path.cwd(),
            log=self._folder.logs / f"{name}.log",
            is_ready=is_ready,
            ready_file=ready_file,
            life_timeout_s=_HUNG_AFTER_S,
            answers=answers,
            stop_timeout_s=_SERVICE_STOP_TIMEOUT_S,
            is_ours=True,
        )


def _log_servers(own: Mapping[str, str]) -> None:
    """Log which servers are embedded and which are the caller's."""
    embedded, yours = environment.described(own)
    log.info("embedded: %s; yours: %s", embedded, redact(yours) or "nothing")
    if "DREAM_OWNERS_SQL" in own and "DREAM_DATABASE_URL" not in own:
        log.warning(
            "DREAM_OWNERS_SQL runs in the embedded SQLite, which has none of your tables: set DREAM_DATABASE_URL"
        )
    ignored = [name for name in environment.NOT_USED if os.environ.get(name)]
    if ignored:
        log.warning("`dream up` does not use: %s", ", ".join(ignored))


@contextmanager
def servers_only(data: Path) -> Iterator[dict[str, str]]:
    """Run Valkey and SeaweedFS on a data folder while the block lasts; for tests.

    The servers are killed at the end, which loses no acknowledged write. Call it from the main thread.

    Yields:
      The `DREAM_…` variables of the servers.
    """
    folder = DataFolder(data)
    with folder.locked() as lock:
        state = folder.load() or State()
        state.settle_ports()
        state.gateway_port = ports.choose(taken=state.ports.values())
        folder.save(state)
        supervisor = Supervisor(keep_open=[lock])
        try:
            supervisor.start(servers.valkey(folder, state))
            supervisor.start(servers.weed(folder, state))
            supervisor.wait_ready(timeout_s=_READY_TIMEOUT_S)
            yield environment.embedded_values(folder, state)
        finally:
            supervisor.kill()
            servers.remove_weed_sockets(state)


def running_variables(data: Path) -> dict[str, str]:
    """The `DREAM_…` variables of the stack that runs on a data folder.

    Raises:
      StackError: no stack runs there.
    """
    folder = DataFolder(data)
    state = folder.load() if folder.is_running() else None
    if state is None:
        raise StackError(f"no stack is running on {folder.path}; start one with `dream up`")
    return folder.load_variables() or environment.embedded_values(folder, state)


@contextmanager
def _stopping(supervisor: Supervisor, state: State) -> Iterator[None]:
    try:
        yield
    finally:
        supervisor.stop(SERVICES, _SERVERS)
        servers.remove_weed_sockets(state)


def import_flags() -> list[str]:
    """Options for Python, so that a folder named `dream` in the working folder does not hide this package."""
    root = Path(__file__).resolve().parents[2]
    return [] if root == Path.cwd().resolve() else ["-P"]
