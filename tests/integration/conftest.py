"""Fixtures of the integration tests: the parts in this process, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dream.producer import Producer
from dream.settings import Settings


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    producer = Producer(settings)
    yield producer
    producer.database.dispose()
