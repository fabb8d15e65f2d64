"""This process as a test configures it: by its environment, which a process reads once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from dream import notifications, producer
from dream.settings import Settings, load

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
            producer.default().close()
    forget()


def forget() -> None:
    """What was read is read anew when it is asked for."""
    load.cache_clear()
    producer.forget_default()
    notifications._default_publisher.cache_clear()
