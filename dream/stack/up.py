"""`dream up`: the whole stack in the foreground, in the right order.

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
from dream.stack import own as own_servers
from dream.stack.logs import Follower
from dream.stack.processes import Part
from dream.stack.state import DataFolder, State
from dream.stack.supervisor import Stopped, Supervisor

__all__ = ["PARTS", "Stack", "import_flags", "running_variables", "servers_only"]

log = logging.getLogger(__name__)

PARTS = ("gateway", "scheduler", "worker")
_SERVERS = ("valkey", "weed")
#: Reading back a long append-only file takes its time.
_READY_TIMEOUT_S = 120.0
#: The parts have DREAM_SHUTDOWN_TIMEOUT_S=4; with the servers' 3 s after that, all is stopped within 10 s.
_PART_STOP_TIMEOUT_S = 5.5
#: A part touches its ready file every second.
_HUNG_AFTER_S = 60.0
#: Time for a hung gateway to answer `/healthz`; a busy one takes long.
_ANSWER_TIMEOUT_S = 20.0


class Stack:
    """Valkey, SeaweedFS and our own parts on one data folder.

    Parameters:
      data: the data folder; made if it is not there.
      port: the gateway's port; 0 chooses one.
      parts: which of `PARTS` to run; none means the servers alone.
    """

    def __init__(self, data: Path, *, port: int = 8000, parts: Sequence[str] = PARTS) -> None:
        self._folder = DataFolder(data)
        self._port = port
        self._parts = tuple(parts)

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Start all, say so, keep all up until SIGTERM or SIGINT, stop all.

        Parameters:
          on_ready: called once, with the gateway's URL.

        Raises:
          StackError, SettingsError: the stack cannot start; nothing of it is left running.
        """
        follower = Follower(sys.stderr.buffer)
        with self._folder.locked() as lock:
            before = self._folder.load()
            embedded = environment.variables(self._folder, before) if before else {}
            own = own_servers.own_values(os.environ, embedded)
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
        """The state of the last run, with ports that are free now."""
        state = self._folder.load() or State()
        for name in state.settle_ports():
            log.warning("the port of %s is taken by somebody else; it moves to %d", name, state.ports[name])
        if self._port == 0:
            state.gateway_port = ports.choose(taken=state.ports.values())
        else:
            state.gateway_port = self._port
            if "gateway" in self._parts and not ports.is_free(self._port):
                raise StackError(
                    f"port {self._port} is taken; choose another: --port N with `dream`, or make demo ARGS='--port N'"
                )
        self._folder.save(state)
        return state

    def _start(self, supervisor: Supervisor, state: State, own: Mapping[str, str], follower: Follower) -> None:
        variables = own_servers.complete(own, environment.variables(self._folder, state))
        self._folder.save_variables(variables)
        if own_servers.uses_valkey(own):
            supervisor.start(servers.valkey(self._folder, state))
        if own_servers.uses_seaweedfs(own):
            supervisor.start(servers.weed(self._folder, state))
        env = environment.for_part(os.environ, variables)
        if self._parts:
            prepare = self._part("prepare", ["-m", "dream.stack.prepare"], env)
            supervisor.run_once(prepare, timeout_s=_READY_TIMEOUT_S)
        supervisor.wait_ready(timeout_s=_READY_TIMEOUT_S)
        _say_whose(own)
        for name in reversed(self._parts):
            part = self._part(name, ["-m", "dream", name], env)
            follower.add(part.log)
            supervisor.start(part)
        supervisor.wait_ready(timeout_s=_READY_TIMEOUT_S)

    def _part(self, name: str, arguments: list[str], env: dict[str, str]) -> Part:
        ready_file = self._folder.run / f"{name}.ready"
        is_ready: Callable[[], bool] = ready_file.exists
        answers = None
        if name == "gateway":
            port = int(env["DREAM_PORT"])
            is_ready = partial(servers.answers, port, "/readyz")
            answers = partial(servers.answers, port, "/healthz", timeout_s=_ANSWER_TIMEOUT_S)
        return Part(
            name=name,
            argv=[sys.executable, *import_flags(), *arguments],
            env={**env, "DREAM_READY_FILE": str(ready_file)},
            cwd=Path.cwd(),
            log=self._folder.logs / f"{name}.log",
            is_ready=is_ready,
            ready_file=ready_file,
            life_timeout_s=_HUNG_AFTER_S,
            answers=answers,
            stop_timeout_s=_PART_STOP_TIMEOUT_S,
            is_ours=True,
        )


def _say_whose(own: Mapping[str, str]) -> None:
    """Log which servers are embedded and which are the caller's."""
    embedded, yours = own_servers.described(own)
    log.info("embedded: %s; yours: %s", embedded, redact(yours) or "nothing")
    if "DREAM_OWNERS_SQL" in own and "DREAM_DATABASE_URL" not in own:
        log.warning("DREAM_OWNERS_SQL runs in the embedded SQLite, which has no table of yours: set DREAM_DATABASE_URL")
    ignored = [name for name in own_servers.NOT_USED if os.environ.get(name)]
    if ignored:
        log.warning("not used by `dream up`: %s", ", ".join(ignored))


@contextmanager
def servers_only(data: Path) -> Iterator[dict[str, str]]:
    """Valkey and SeaweedFS on a data folder, for as long as the block lasts; for tests.

    The servers are killed at the end, which loses nothing that was acknowledged. Call it from the main thread.

    Yields:
      The `DREAM_…` variables that point at them.
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
            yield environment.variables(folder, state)
        finally:
            supervisor.kill()
            servers.remove_weed_sockets(state)


def running_variables(data: Path) -> dict[str, str]:
    """The `DREAM_…` variables of the stack that runs on a data folder.

    Raises:
      StackError: none runs there.
    """
    folder = DataFolder(data)
    state = folder.load() if folder.is_running() else None
    if state is None:
        raise StackError(f"no stack is running on {folder.path}; start one with `dream up`")
    return folder.load_variables() or environment.variables(folder, state)


@contextmanager
def _stopping(supervisor: Supervisor, state: State) -> Iterator[None]:
    try:
        yield
    finally:
        supervisor.stop(PARTS, _SERVERS)
        servers.remove_weed_sockets(state)


def import_flags() -> list[str]:
    """Keep a `dream` folder in the caller's working folder (a web project's app, say) from hiding ours."""
    root = Path(__file__).resolve().parents[2]
    return [] if root == Path.cwd().resolve() else ["-P"]
