"""Fixtures that all tests share: real servers, each worker process of pytest with its own.

- `servers`: a Valkey and a SeaweedFS of this process, as an environment of `DREAM_…` variables.
- `settings`: settings on those servers with a key prefix, a database file and a bucket of the test's own.
- `local_…`: services of the machine, where they answer; with `CI=true` they must.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from dream.db import migrate
from dream.settings import Settings
from dream.stack import servers_only
from dream.storage import Storage

IN_CI = os.environ.get("CI") == "true"

# What a developer's shell points at must not reach the tests.
for _name in [name for name in os.environ if name.startswith("DREAM_") and not name.startswith("DREAM_TEST_")]:
    del os.environ[_name]


def wait_for[T](condition: Callable[[], T], timeout_s: float = 20.0, what: str = "the condition") -> T:
    """Ask until the answer is truthy; fail after `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > give_up:
            pytest.fail(f"{what} did not come within {timeout_s:g} s")
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with servers_only(tmp_path_factory.mktemp("servers")) as environment:
        yield dict(environment)


@pytest.fixture
def environment(servers: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """`DREAM_…` variables for this test alone: own keys, own database, own bucket, quick clocks."""
    unique = uuid4().hex[:12]
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    return {
        **servers,
        "DREAM_REDIS_PREFIX": f"t{unique}",
        "DREAM_DATABASE_URL": f"sqlite:///{tmp_path}/dream.db",
        "DREAM_S3_BUCKET": f"t-{unique}",
        "DREAM_WORK_DIR": str(work_dir),
        "DREAM_WORKER_POLL_MS": "50",
        "DREAM_POOL_SIZE": "1",
    }


@pytest.fixture
def settings_of() -> Callable[[dict[str, str]], Settings]:
    """Settings from an environment, as `dream.settings.load` would read them."""

    def build(environment: dict[str, str], **changes: Any) -> Settings:
        values = {name.removeprefix("DREAM_").lower(): value for name, value in environment.items()}
        return Settings(**{**values, **changes})

    return build


@pytest.fixture
def settings(environment: dict[str, str], settings_of: Callable[..., Settings]) -> Settings:
    """Settings on migrated, empty servers."""
    settings = settings_of(environment)
    migrate.upgrade(settings.database_url)
    Storage(settings).ensure_bucket(settings.s3_bucket)
    return settings


# --- services of the machine


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def _local_service(variable: str, default: str) -> str:
    url = os.environ.get(variable, default)
    if not _answers(url):
        message = f"no server answers at {variable} (default {default})"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return url


@pytest.fixture(scope="session")
def local_redis_url() -> str:
    return _local_service("DREAM_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


@pytest.fixture(scope="session")
def local_rabbitmq_url() -> str:
    return _local_service("DREAM_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
