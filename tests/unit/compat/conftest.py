"""A process configured by its environment, with a database of its own and no server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream import producer, settings
from dream.db import Database, migrate


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/dream.db"
    migrate.upgrade(url)
    monkeypatch.setenv("DREAM_DATABASE_URL", url)
    monkeypatch.setenv("DREAM_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody answers there
    settings.load.cache_clear()
    producer.forget_default()
    yield producer.default().database
    producer.default().database.dispose()
    producer.forget_default()
    settings.load.cache_clear()


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
