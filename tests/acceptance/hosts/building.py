"""Hosts: each has a network, process ids, a name and a clock of its own; a switch joins them.

    Host ── unshare ─► init ── its namespaces
                         └─ processes that `Host.start` starts there
    Switch (switch.py) ── a cable to each host

A namespace ends with its init, and so do all processes in it: init reads from this process, so a kill of this process
leaves nothing. All hosts see the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import pytest

from tests.acceptance.hosts.switch import Cable
from tests.clocks import Clock
from tests.conftest import IN_CI, wait_for

__all__ = ["Host", "Network", "network"]

_NETWORK = "10.77.0"
_ROOT = Path(__file__).parents[3]


class Host:
    """One host.

    Parameters:
      name: its host name.
      number: the last part of its address.
      folder: for its clock and the logs of its processes.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self.device = f"dh{uuid4().hex[:8]}{number}"
        self.folder = folder / name
        self.folder.mkdir()
        self.clock = Clock(self.folder)
        command = ["unshare", "--net", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child", "cat"]
        self._init = subprocess.Popen(command, stdin=subprocess.PIPE)
        self._processes: list[subprocess.Popen[str]] = []
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children")
        self.pid = int(wait_for(lambda: children.read_text().split(), what=f"the init of host {name}")[0])
        comm = Path(f"/proc/{self.pid}/comm")
        wait_for(lambda: comm.read_text() == "cat\n", what=f"the namespaces of host {name}")
        self.run("hostname", name)
        self.run("ip", "link", "set", "lo", "up")

    def plug_in(self) -> None:
        """Take the device that the switch has made."""
        subprocess.run(["ip", "link", "set", self.device, "netns", str(self.pid)], check=True)
        self.run("ip", "address", "add", f"{self.address}/24", "dev", self.device)
        self.run("ip", "link", "set", self.device, "up")

    def run(self, *command: str) -> None:
        """Run a command on this host to its end."""
        subprocess.run([*self._inside, *command], check=True, capture_output=True, timeout=60)

    def start(
        self, *command: object, environment: Mapping[str, str] | None = None, user: str | None = None, log: str
    ) -> subprocess.Popen[str]:
        """Start a process on this host; it may be spoken to. Its errors go to a file of that name.

        Parameters:
          environment: more variables.
          user: the user who runs it, else root.
        """
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        with (self.folder / log).open("wb") as errors:
            process = subprocess.Popen(
                [*self._inside, *as_user, *map(str, command)],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._processes.append(process)
        return process

    def start_part(self, part: str, environment: Mapping[str, str]) -> Callable[[], None]:
        """Start `dream worker` or another part with this host's clock; a call of the answer waits until it is ready."""
        ready = self.folder / f"{part}.ready"
        variables = {**environment, **self.clock.variables, "DREAM_READY_FILE": str(ready), "DREAM_HOST": self.address}
        process = self.start(sys.executable, "-m", "dream", part, environment=variables, log=f"{part}.log")

        def wait() -> None:
            what = f"readiness of {part} on {self.name}"
            wait_for(lambda: ready.exists() or process.poll() is not None, 120, what)
            assert ready.exists(), self.log(part)

        return wait

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text()

    def end(self) -> None:
        """Kill every process of this host."""
        for process in (self._init, *self._processes):
            with process:  # closes its pipes; the end of its input is the end of init
                pass

    @property
    def _inside(self) -> Sequence[str]:
        return ("nsenter", f"--target={self.pid}", "--net", "--uts", "--pid", "--mount", f"--wd={_ROOT}", "--")


class Network:
    """Hosts by name, and the cables between them and the switch."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}
        command = [sys.executable, "-m", "tests.acceptance.hosts.switch", *(host.device for host in hosts)]
        self._switch = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == "ready\n"
        for host in hosts:
            host.plug_in()

    def set(self, *names: str, **state: float) -> None:
        """Set the cables of these hosts (`Cable`); what is not named is as in a good cable."""
        assert self._switch.stdin is not None
        for name in names:
            cable = Cable(self.hosts[name].device, **state)  # type: ignore[arg-type]
            self._switch.stdin.write(json.dumps(asdict(cable)) + "\n")
        self._switch.stdin.flush()

    def end(self) -> None:
        with self._switch:  # the end of its input is its end
            pass


@contextlib.contextmanager
def network(folder: Path, *names: str) -> Iterator[Network]:
    """A network of hosts of these names; the test is skipped where this process may not build one."""
    _require()
    with contextlib.ExitStack() as ends:
        hosts = []
        for number, name in enumerate(names, 1):
            hosts.append(Host(name, number, folder))
            ends.callback(hosts[-1].end)
        built = Network(hosts)
        ends.callback(built.end)
        yield built


def _require() -> None:
    missing = [program for program in ("unshare", "nsenter", "ip", "setpriv") if shutil.which(program) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not Path("/dev/net/tun").exists():
        missing.append("/dev/net/tun")
    if missing:
        message = f"hosts in namespaces need {', '.join(missing)} (Debian: util-linux, iproute2)"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
