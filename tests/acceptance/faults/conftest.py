"""Fixtures of the fault matrix; `--faults all` runs every cell, without it a pairwise choice runs.

With `--matrix FILE` the outcome of each cell is written into that page, between its marks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dream.db import migrate
from dream.storage import Storage
from tests.acceptance.faults import report
from tests.acceptance.faults.cells import Cell, all_cells, pairwise
from tests.acceptance.faults.preloaded import PreloadedParts
from tests.acceptance.faults.scene import QUICK, Scene
from tests.acceptance.faults.servers import Postgres, Valkey, postgres_programs, small_disk
from tests.conftest import IN_CI, environment_in, settings_from
from tests.proxies import StoreProxy

_MOST_CELLS = 24


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        flow = metafunc.module.FLOW
        cells = all_cells()
        if metafunc.config.getoption("--faults") != "all":
            cells = pairwise(cells, _MOST_CELLS)
        metafunc.parametrize("cell", [cell for cell in cells if cell.flow == flow], ids=str)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A cell's report says which cell it was."""
    outcome: Any = yield
    cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")  # type: ignore[attr-defined]
    if isinstance(cell, Cell) and outcome.get_result().when == "setup":
        item.user_properties.append(("cell", [cell.flow, cell.step, cell.moment, cell.fault]))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.kill()


@pytest.fixture(scope="session")
def store(servers: dict[str, str]) -> Iterator[StoreProxy]:
    upstream = urlsplit(servers["DREAM_S3_ENDPOINT_URL"])
    store = StoreProxy((upstream.hostname or "", upstream.port or 0))
    yield store
    store.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "dream.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    programs = postgres_programs()
    if programs is None:
        message = "there is no PostgreSQL to start under /usr/lib/postgresql"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    # Its user must reach its folder.
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"dream-postgres-{os.getpid()}"
    folder.mkdir(mode=0o755)
    postgres = Postgres(folder, programs)
    postgres.start()
    yield postgres
    postgres.stop()
    shutil.rmtree(folder)


@pytest.fixture
def postgres_database(postgres: Postgres) -> str:
    url = postgres.new_database()
    migrate.upgrade(url)
    return url


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def scene(
    cell: Cell,
    tmp_path: Path,
    servers: dict[str, str],
    valkey: Valkey,
    store: StoreProxy,
    sqlite_template: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    environment = {
        **environment_in(tmp_path, servers),
        **QUICK,
        "DREAM_BROKER_URL": valkey.url,
        "DREAM_REDIS_URL": valkey.url,
        "DREAM_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
    }
    postgres = None
    if cell.fault == "database restarted":
        environment["DREAM_DATABASE_URL"] = request.getfixturevalue("postgres_database")
        postgres = request.getfixturevalue("postgres")
    else:
        folder = request.getfixturevalue("disk") if cell.fault == "disk full" else tmp_path
        shutil.copy(sqlite_template, folder / "dream.db")
        environment["DREAM_DATABASE_URL"] = f"sqlite:///{folder}/dream.db"
        environment["DREAM_WORK_DIR"] = str(folder)
    settings = settings_from(environment)
    Storage(settings).ensure_bucket(settings.s3_bucket)
    logs = tmp_path / "parts"
    logs.mkdir()
    parts = PreloadedParts(environment, logs)
    scene = Scene(cell, environment, valkey, store, postgres, parts, tmp_path)
    yield scene
    scene.go_on_if_struck()
    scene.close()
    parts.end()


# --- the page


def pytest_configure(config: pytest.Config) -> None:
    page = config.getoption("--matrix")
    if page and not hasattr(config, "workerinput"):
        config.pluginmanager.register(report.Page(Path(page)))
