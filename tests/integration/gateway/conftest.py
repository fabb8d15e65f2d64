"""Gateways: one for all tests that change no setting, one that takes little, and those that a test starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dream.db.dreams import give_to
from dream.settings import Settings
from tests.gateway import DREAM, OTHER_DREAM, OWNER, STRANGER, Gateway, emptied, running


@pytest.fixture
def start(
    environment: dict[str, str], settings_of: Callable[..., Settings], settings: Settings, tmp_path: Path
) -> Callable[..., Gateway]:
    """Make a gateway with a dream of OWNER's and one of STRANGER's."""

    def make(**changes: str) -> Gateway:
        own = {**environment, "DREAM_PORT": "0", **{f"DREAM_{name.upper()}": value for name, value in changes.items()}}
        gateway = Gateway(own, settings_of(own), tmp_path)
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
            give_to(session, OTHER_DREAM, STRANGER, "sam")
        return gateway

    return make


@pytest.fixture(scope="package")
def plain(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One process for all tests that change no setting: to start one takes a second."""
    with running(tmp_path_factory.mktemp("gateway"), servers) as gateway:
        yield gateway


@pytest.fixture(scope="package")
def limited(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    limits = {
        "DREAM_MAX_UPLOAD_BYTES": "1000",
        "DREAM_MAX_FILES_PER_UPLOAD": "4",
        "DREAM_MAX_REQUEST_BYTES": "100000",
    }
    with running(tmp_path_factory.mktemp("limited"), servers, **limits) as gateway:
        yield gateway


@pytest.fixture
def gateway(plain: Gateway) -> Gateway:
    return emptied(plain)


@pytest.fixture
def strict(limited: Gateway) -> Gateway:
    """A gateway that takes little."""
    return emptied(limited)
