"""A Redis with which no waiting helps ends each part at its start, with exit code 2 and one line.

`test_doctor.py` starts the other parts on a cluster.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream.errors import SettingsError
from dream.settings import Settings
from dream.work.presence import refuse_wrong_redis
from tests.commands import dream, only_line
from tests.processes import WORKER
from tests.valkey import Valkey

Environment = dict[str, str]
PARTS = {
    "bridge": ["-m", "dream", "bridge", "--from", "redis://127.0.0.1:1/0"],
    "Dramatiq's own command": ["-m", "dramatiq", "dream.actors", "-p", "1"],
    "Celery's command": [str(WORKER)],
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One node of a Redis Cluster."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        bus = free.getsockname()[1]
    node = Valkey(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes", "--cluster-port", str(bus))
    node.start()
    yield node
    node.kill()


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_node_of_a_cluster_is_refused(environment: Environment, cluster: Valkey, part: str) -> None:
    own = {**os.environ, **environment, "DREAM_BROKER_URL": cluster.url, "DREAM_REDIS_URL": ""}
    run = subprocess.run(
        [sys.executable, *PARTS[part]], env=own, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2, run.stderr
    lines = [line for line in run.stderr.splitlines() if "dream: " in line]
    assert len(lines) == 1, run.stderr
    assert "names a node of a Redis Cluster" in lines[0]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:s3cret@127.0.0.1:1/0?no_such=1", "the option 'no_such' is not known"),
        ("sentinel://:s3cret@127.0.0.1:1/pictures/0?no_such=1", "the option 'no_such' is not known"),
        ("rediss://:s3cret@127.0.0.1:1/0?ssl_cert_reqs=sometimes", "sometimes"),
    ],
)
def test_a_wrong_option_is_one_line_without_the_password(url: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as raised:
        refuse_wrong_redis(Settings(broker_url=url))
    assert str(raised.value).startswith("DREAM_BROKER_URL=")
    assert "s3cret" not in str(raised.value)


def test_a_service_that_no_sentinel_watches_is_refused(environment: Environment, tmp_path: Path) -> None:
    """The line names the services that they watch."""
    watched = Valkey(tmp_path)
    watched.start()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor pictures 127.0.0.1 {watched.port} 1\n")
    (tmp_path / "sentinel").mkdir()
    sentinel = Valkey(tmp_path / "sentinel", config=config)
    try:
        sentinel.start()
        url = f"sentinel://127.0.0.1:{sentinel.port}/photos/0"
        run = dream(environment, "scheduler", DREAM_BROKER_URL=url, DREAM_REDIS_URL="")
        assert run.returncode == 2
        assert "the sentinels watch no service 'photos', but pictures" in only_line(run.stderr)
    finally:
        sentinel.kill()
        watched.kill()
