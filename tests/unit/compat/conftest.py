"""A process configured by its environment, with a database of its own and no server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream import producer
from dream.db import Database
from tests.conftest import migrated_sqlite
from tests.this_process import configured


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    url = migrated_sqlite(tmp_path / "dream.db")
    with configured({"DREAM_DATABASE_URL": url, "DREAM_REDIS_URL": "redis://127.0.0.1:1/0"}):  # nobody answers there
        yield producer.default().database


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `shop` that can be imported, and is forgotten afterwards."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]
