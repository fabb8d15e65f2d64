"""Celery's fixtures for pytest: `pytest_plugins = ("dream.compat.contrib.pytest",)`.

    celery_config, celery_parameters, celery_includes, …   settings of the others, for the tests to override
    celery_app, celery_worker                              an app, and a worker in this process, for one test
    celery_session_app, celery_session_worker              the same for all tests

With NO_WORKER in the environment no worker is started, because one runs beside the tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from dream.compat.contrib.testing.app import TestApp, setup_default_app

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.contrib.testing.worker import TestWorkController

__all__ = [
    "celery_app",
    "celery_class_tasks",
    "celery_config",
    "celery_enable_logging",
    "celery_includes",
    "celery_parameters",
    "celery_session_app",
    "celery_session_worker",
    "celery_worker",
    "celery_worker_parameters",
    "celery_worker_pool",
    "depends_on_current_app",
    "pytest_configure",
    "use_celery_app_trap",
]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker with settings of one test: `@pytest.mark.celery(result_extended=True)`."""
    config.addinivalue_line("markers", "celery(**overrides): override celery configuration for a test case")


# --- fixtures that tests override


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """The app's settings."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """More arguments of `Celery(…)`."""
    return {}


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Without effect: logging is left to the tests."""
    return False


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether using the current app is an error."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Iterable[str]:
    """Modules with tasks, which are imported before a worker starts."""
    return ()


@pytest.fixture(scope="session")
def celery_class_tasks() -> Iterable[Any]:
    """Classes of tasks, which the session's app registers."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """Without effect: tasks run in threads."""
    return "threads"


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """More arguments of `start_worker`."""
    return {}


# --- fixtures that tests use


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for one test."""
    with _made(request, celery_config, celery_parameters, use_celery_app_trap) as app:
        yield app


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for all tests, the current one unless a test has another."""
    with _made(request, celery_config, celery_parameters, use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_current()
        yield app


@pytest.fixture
def celery_worker(
    celery_app: Celery,
    celery_includes: Iterable[str],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController | None]:
    """A worker of the test's app."""
    with _worker(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Celery,
    celery_includes: Iterable[str],
    celery_class_tasks: Iterable[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController | None]:
    """A worker of the session's app."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _worker(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Celery) -> None:
    """The test's app is the current one."""
    celery_app.set_current()


@contextmanager
def _made(
    request: pytest.FixtureRequest, config: Mapping[str, Any], parameters: Mapping[str, Any], use_trap: bool
) -> Iterator[Celery]:
    mark = request.node.get_closest_marker("celery")
    app = TestApp(config={**config, **(mark.kwargs if mark else {})}, **parameters)
    with setup_default_app(app, use_trap=use_trap):
        yield app


@contextmanager
def _worker(
    app: Celery, includes: Iterable[str], pool: str, parameters: Mapping[str, Any]
) -> Iterator[TestWorkController | None]:
    if os.environ.get("NO_WORKER"):
        yield None
        return
    from dream.compat.contrib.testing.worker import start_worker

    for module in includes:
        import_module(module)
    with start_worker(app, **{"pool": pool, **parameters}) as worker:
        yield worker
