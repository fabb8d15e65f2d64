"""The number of connections that a process accepts, by its limit of open files."""

from __future__ import annotations

from typing import Literal

import pytest

from dream.gateway.door import most_connections
from dream.settings import Settings


@pytest.mark.parametrize(
    ("mode", "open_files", "most"),
    [("redirect", 65_536, 10_000), ("redirect", 4096, 3200), ("proxy", 65_536, 10_000), ("proxy", 4096, 1600)],
)
def test_a_process_accepts_no_more_connections_than_it_can_open_files(
    mode: Literal["redirect", "proxy"], open_files: int, most: int
) -> None:
    """In proxy mode each client may need a connection to the object store."""
    assert most_connections(Settings(media_mode=mode), open_files) == most
