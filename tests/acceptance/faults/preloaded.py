"""Parts that need not import anything: forked from a process that has imported the libraries, and nothing of ours.

A cell starts three to five processes that live for seconds; what they import costs more than what they do. A forked
part is as real as any other: its own process and environment, its own log, `python -m dream …` from its first line on,
and it can be killed alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.processes import MARK, Parts, name_after

__all__ = ["Preloaded", "PreloadedParts"]

_LIBRARIES = [
    "alembic",
    "apscheduler.schedulers.background",
    "apscheduler.triggers.cron",
    "boto3.session",
    "botocore.client",
    "botocore.handlers",
    "dramatiq",
    "dramatiq.brokers.rabbitmq",
    "dramatiq.brokers.redis",
    "dramatiq.middleware",
    "pebble",
    "psycopg",
    "pydantic_settings",
    "redis",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.orm",
    "structlog",
    "tests.acceptance.faults.preloaded",
    "typer",
    "typer.rich_utils",
]


class Preloaded:
    """A part, held as a `subprocess.Popen` is."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        output.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LIBRARIES)
        self._process: ForkServerProcess = context.Process(target=_become, args=(list(argv), dict(environment), output))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(["dream"], timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            # Its end may not have been reported yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class PreloadedParts(Parts):
    """As `Parts`, each forked from the preloaded process."""

    def _launch(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path | None, output: Path) -> Preloaded:
        assert cwd is None
        return Preloaded(argv, environment, output)


def _become(argv: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    """Be `python -m MODULE ARGUMENT…`, as if started so."""
    os.environ.clear()
    os.environ.update(environment)
    name_after(environment[MARK])
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    option, module, *arguments = argv
    assert option == "-m"
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
