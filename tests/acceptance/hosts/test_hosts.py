"""Several hosts, whose network and clocks fail: the promise holds all the same.

    web ── uploads, deletes, watches                worker-1, worker-2
    gateway ── gateway, scheduler                   data ── Valkey, PostgreSQL, SeaweedFS

Traffic goes on all the time, and the faults come one after another, so that one set of hosts serves for all.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hosts.building import Host, Network, network
from tests.acceptance.hosts.servers import data_servers
from tests.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CUT_S = 60.0
#: Shorter than the defaults, in their proportions, but longer than a slow link takes for a few round trips.
CLOCKS = {
    "DREAM_LEASE_S": "6",
    "DREAM_LEASE_RENEW_S": "2",
    "DREAM_HEARTBEAT_S": "8",
    "DREAM_RESEND_AFTER_S": "10",
    "DREAM_RETRY_FIRST_S": "2",
    "DREAM_S3_CONNECT_TIMEOUT_S": "3",
    "DREAM_S3_READ_TIMEOUT_S": "5",
    "DREAM_PING_INTERVAL_S": "1",
    "DREAM_POOL_SIZE": "1",
    "DREAM_WORKER_THREADS": "2",
    "DREAM_JWT_SECRET": "a secret of the hosts' own, 32 bytes",
    "DREAM_LOG_FORMAT": "json",
}


class Site:
    """A site of five hosts with traffic."""

    def __init__(self, built: Network, variables: dict[str, str]) -> None:
        self.network = built
        self._variables = variables
        web = built.hosts["web"]
        self._traffic = web.start(
            sys.executable, "-m", "tests.acceptance.hosts.traffic", environment=variables, log="traffic.log"
        )
        self.report()  # the tables are there
        parts = {"gateway": ("gateway", "scheduler"), "worker-1": ("worker",), "worker-2": ("worker",)}
        waits = [self.host(name).start_part(part, variables) for name in parts for part in parts[name]]
        for wait in waits:
            wait()

    def host(self, name: str) -> Host:
        return self.network.hosts[name]

    def report(self) -> dict[str, Any]:
        """The results of the traffic so far."""
        return self._ask("report")

    def finish(self) -> dict[str, Any]:
        """The results at its end, with each breach of the promise."""
        return self._ask("finish")

    def await_progress(self, tasks: int = 5) -> None:
        """Wait until so many more tasks have ended."""
        ended = self.report()["ended"]
        wait_for(lambda: self.report()["ended"] >= ended + tasks, 60, f"the end of {tasks} tasks")

    def runs_of(self, worker: str) -> int:
        """The number of runs that this host's worker has ended well."""
        return self.host(worker).log("worker").count('"task_succeeded"')

    def _ask(self, question: str) -> dict[str, Any]:
        assert self._traffic.stdin is not None
        assert self._traffic.stdout is not None
        self._traffic.stdin.write(f"{question}\n")
        self._traffic.stdin.flush()
        line = self._traffic.stdout.readline()
        assert line, self.host("web").log("traffic")
        answer: dict[str, Any] = json.loads(line)
        return answer


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    names = ("data", "gateway", "web", "worker-1", "worker-2")
    with network(tmp_path, *names) as built, data_servers(built.hosts["data"]) as variables:
        gateway = built.hosts["gateway"].address
        yield Site(built, {**variables, **CLOCKS, "DREAM_GATEWAY_URL": f"http://{gateway}:8000"})


def test_the_promise_holds_while_hosts_are_cut_off_slow_lossy_and_wrong_about_the_time(site: Site) -> None:
    """A minute without one worker host; meanwhile the other is slow, then loses packets, then two minutes ahead.

    Then it is two minutes behind, and the first is back. At last the gateway host is cut off, and the page comes back.
    """
    cables, second = site.network, site.host("worker-2")
    wait_for(lambda: site.runs_of("worker-1") > 1 and site.runs_of("worker-2") > 1, 60, "work for both hosts")

    minute_is_over = threading.Event()
    threading.Timer(CUT_S, minute_is_over.set).start()
    cables.set("worker-1", is_cut=True)
    site.await_progress(10)
    cables.set("worker-2", delay_ms=300, jitter_ms=100)
    site.await_progress(3)
    cables.set("worker-2", "data", "web", "gateway", loss=0.05)
    site.await_progress(5)
    cables.set("worker-2", "data", "web", "gateway")
    second.clock.set(120)
    site.await_progress(10)
    assert minute_is_over.wait(CUT_S + 1)

    done = site.runs_of("worker-1")
    cables.set("worker-1")
    second.clock.set(-120)
    site.await_progress(10)
    wait_for(lambda: site.runs_of("worker-1") > done, 90, "work for the host that is back")
    second.clock.set(0)

    wait_for(lambda: site.report()["is_watched"], 60, "the page's socket")
    cables.set("gateway", is_cut=True)
    wait_for(lambda: not site.report()["is_watched"], 60, "the end of the page's socket")
    site.await_progress(10)
    cables.set("gateway")
    wait_for(lambda: site.report()["is_watched"], 60, "a new socket of the page")

    found = site.finish()
    assert found["broken"] == []
    assert found["failed"] == 0, found
