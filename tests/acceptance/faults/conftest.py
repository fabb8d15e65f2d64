"""Fixtures of the fault matrix; `--faults all` runs every cell, without it a pairwise choice runs.

With `--matrix FILE` the outcome of each cell is written into that page, between its marks; with `-k` beside it,
cells that are not chosen keep what the page says of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import make_url

from dream.db import migrate
from tests.acceptance.faults import report
from tests.acceptance.faults.cells import WORLDS, Cell, all_cells, pairwise
from tests.acceptance.faults.scene import OF_FLOW, QUICK, Scene
from tests.acceptance.faults.servers import Postgres, Valkey, small_disk
from tests.acceptance.faults.stack_scene import StackScene, stack_environment
from tests.conftest import environment_in, settings_from
from tests.network import Proxy
from tests.postgresql import programs
from tests.processes import Parts
from tests.queues import delete_queues
from tests.store_proxy import StoreProxy

_MOST_CELLS = 32


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        flow = metafunc.module.FLOW
        is_all = metafunc.config.getoption("--faults") == "all"
        cells = all_cells() if is_all else pairwise(all_cells(), _MOST_CELLS)
        chosen = [
            pytest.param(cell, id=str(cell), marks=pytest.mark.slow if number % 16 and not is_all else ())
            for number, cell in enumerate(cells)
            if cell.flow == flow
        ]
        metafunc.parametrize("cell", chosen)


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
    found = programs()
    # Its user must reach its folder.
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"dream-postgres-{os.getpid()}"
    folder.mkdir(mode=0o755)
    postgres = Postgres(folder, found)
    postgres.start()
    yield postgres
    postgres.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def network_of_postgres(postgres: Postgres) -> Iterator[Proxy]:
    network = Proxy(("127.0.0.1", postgres.port))
    yield network
    network.close()


@pytest.fixture(scope="session")
def network_of_rabbitmq(local_rabbitmq_url: str) -> Iterator[Proxy]:
    server = urlsplit(local_rabbitmq_url)
    network = Proxy((server.hostname or "", server.port or 5672))
    yield network
    network.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def usual(
    tmp_path: Path, servers: dict[str, str], valkey: Valkey, store: StoreProxy, sqlite_template: Path
) -> dict[str, str]:
    """The variables of a cell on Valkey, SeaweedFS and SQLite."""
    shutil.copy(sqlite_template, tmp_path / "dream.db")
    own = environment_in(tmp_path, servers)
    return {
        **own,
        **QUICK,
        "DREAM_ORIGINALS_BUCKET": own["DREAM_S3_BUCKET"],
        "DREAM_BROKER_URL": valkey.url,
        "DREAM_REDIS_URL": valkey.url,
        "DREAM_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
    }


World = dict[str, Any]
"""What a scene is made of: the variables of its parts, and the servers and networks that it is about."""


@pytest.fixture
def usual_world(usual: dict[str, str]) -> World:
    return {"environment": usual}


@pytest.fixture
def postgres_world(usual: dict[str, str], postgres: Postgres, network_of_postgres: Proxy) -> World:
    url = postgres.new_database()
    migrate.upgrade(url)
    through = make_url(url).set(port=network_of_postgres.port).render_as_string(hide_password=False)
    environment = {**usual, "DREAM_DATABASE_URL": through}
    return {"environment": environment, "postgres": postgres, "network": network_of_postgres, "database_url": url}


@pytest.fixture
def small_disk_world(usual: dict[str, str], disk: Path, sqlite_template: Path) -> World:
    shutil.copy(sqlite_template, disk / "dream.db")
    on_disk = {
        "DREAM_DATABASE_URL": f"sqlite:///{disk}/dream.db",
        "DREAM_WORK_DIR": str(disk),
        "DREAM_STAGING_DIR": f"{disk}/staging",
    }
    return {"environment": {**usual, **on_disk}}


@pytest.fixture
def rabbitmq_world(usual: dict[str, str], local_rabbitmq_url: str, network_of_rabbitmq: Proxy) -> Iterator[World]:
    url = urlsplit(local_rabbitmq_url)
    through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{network_of_rabbitmq.port}").geturl()
    queues = {"DREAM_BROKER_URL": through, "DREAM_QUEUE_PREFIX": f"{usual['DREAM_REDIS_PREFIX']}-"}
    yield {"environment": {**usual, **queues}, "network": network_of_rabbitmq}
    delete_queues(settings_from({**usual, **queues}))


@pytest.fixture
def dream_up_world(usual: dict[str, str], tmp_path: Path, sqlite_template: Path) -> World:
    return {"environment": {**usual, **stack_environment(tmp_path / "data", sqlite_template)}}


@pytest.fixture
def world(cell: Cell, request: pytest.FixtureRequest) -> World:
    world: World = request.getfixturevalue(f"{WORLDS.get(cell.fault, 'usual')}_world")
    return {**world, "environment": {**world["environment"], **OF_FLOW.get(cell.flow, {})}}


@pytest.fixture
def scene(cell: Cell, world: World, tmp_path: Path, valkey: Valkey, store: StoreProxy) -> Iterator[Scene]:
    logs = tmp_path / "parts"
    logs.mkdir()
    parts = Parts(world["environment"], logs)
    made = StackScene if WORLDS.get(cell.fault) == "dream_up" else Scene
    scene = made(cell=cell, valkey=valkey, store=store, parts=parts, folder=tmp_path, **world)
    yield scene
    scene.go_on_if_struck()
    scene.close()
    parts.end()


# --- the page


def pytest_configure(config: pytest.Config) -> None:
    page = config.getoption("--matrix")
    if page and not hasattr(config, "workerinput"):
        config.pluginmanager.register(report.Page(Path(page), merges=bool(config.getoption("keyword"))))
