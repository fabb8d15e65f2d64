"""This process as a test configures it: by its environment, which a process reads once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from dream import producer
from dream.notifications import publish
from dream.settings import Settings, load
from dream.work import connection

__all__ = ["configured", "forget"]


@contextmanager
def configured(environment: Mapping[str, str]) -> Iterator[Settings]:
    """With these variables, as a web process or a command would be; what it opens meanwhile is closed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        forget()
        try:
            yield load()
        finally:
            connection.default().close()
    forget()


def forget() -> None:
    """Settings and connections are made anew at the next use."""
    load.cache_clear()
    producer.forget_default()
    publish._default_publisher.cache_clear()
