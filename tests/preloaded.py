"""Python programs that need not import anything: forks of a process that has imported the libraries and most of dream.

Tests start hundreds of processes that live for seconds; their imports cost more than their work. A forked program is as
real as any other: it has its own process, environment, folder and output, it runs `python -m dream …` from its first
line on, and it can be killed alone. It cannot have what the interpreter or the C library reads at its start
(`can_be_forked`).
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["MARK", "Preloaded", "can_be_forked", "has_name_of"]

#: Every process that a test starts, and every child of it, carries this variable.
MARK = "DREAM_TEST_MARK"

#: Not `dream.actors` and apps, which read the settings when they are imported; nor prometheus_client and numpy, which
#: read variables.
_MODULES = [
    "alembic",
    "apscheduler.schedulers.background",
    "apscheduler.triggers.cron",
    "boto3.session",
    "botocore.client",
    "botocore.handlers",
    "cryptography.x509",
    "dramatiq",
    "dramatiq.brokers.rabbitmq",
    "dramatiq.brokers.redis",
    "dramatiq.middleware",
    "jwt",
    "pebble",
    "PIL.Image",
    "psycopg",
    "pydantic_settings",
    "python_multipart",
    "redis",
    "rich.progress",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.orm",
    "starlette.applications",
    "starlette.staticfiles",
    "starlette.websockets",
    "structlog",
    "typer",
    "typer.rich_utils",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "websockets.server",
    "dream.cli",
    "dream.cli.doctor",
    "dream.db.migrate",
    "dream.gateway.server",
    "dream.producer",
    "dream.runs.claims",
    "dream.runs.ledger",
    "dream.scheduler.runner",
    "dream.work.respawn",
    "dream.work.worker",
    "tests.preloaded",
]
#: Variables that the interpreter, the C library or a preloaded library reads once.
_READ_AT_START = ("LANG", "LC_", "LD_", "MALLOC_", "OPENBLAS_", "PYTHON", "TZ", "dramatiq_")
#: Python adds its folders to the path of a program, and so does `_become`.
_FOLDERS = "PYTHONPATH"


@dataclass(frozen=True)
class _Program:
    """A run: the arguments of Python, and all that a process inherits."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path | None
    stdin: Path
    stdout: Path
    stderr: Path


def can_be_forked(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether Python itself is started as here; options and other variables need a start of its own."""
    is_program = argv[0].endswith(".py") or (argv[0] == "-m" and argv[1].partition(".")[0] in ("dream", "tests"))
    changed = {name for name, value in environment.items() if os.environ.get(name) != value}
    missing = os.environ.keys() - environment.keys()
    return is_program and not any(name.startswith(_READ_AT_START) for name in (changed | missing) - {_FOLDERS})


class Preloaded:
    """A program that runs, held as a `subprocess.Popen` is.

    Parameters:
      argv: the arguments of Python: `-m MODULE ARGUMENT…` or `FILE.py ARGUMENT…`.
      stdout: a file, or the terminal that the program gets for its own.
      stderr: by default where `stdout` goes.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        stdin, stderr = stdout if stdout.is_char_device() else Path(os.devnull), stderr or stdout
        for output in {stdout, stderr} - {stdin}:
            output.write_bytes(b"")
        program = _Program(list(argv), dict(environment), cwd, stdin, stdout, stderr)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_MODULES)
        self._process: ForkServerProcess = context.Process(target=_become, args=(program,))
        with _without_main():
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


def has_name_of(mark: str, name: str) -> bool:
    """Whether a process of that name was forked with the mark, or is a child of such a one.

    What a process shows of its environment is what its ancestor was started with.
    """
    return name == mark[:15]  # the kernel keeps no more


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Show `multiprocessing` an empty main module: each process that it starts would import pytest's."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _become(program: _Program) -> None:
    """Run the program in this process, as if it had been started so, and end the process with it."""
    os.environ.clear()
    os.environ.update(program.environment)
    Path("/proc/self/comm").write_text(program.environment.get(MARK, "python")[:15])
    if program.stdin == program.stdout:
        os.setsid()  # a terminal that is opened now is this session's, and its Ctrl-C a signal
    for number, path in enumerate([program.stdin, program.stdout, program.stderr]):
        file = os.open(path, os.O_APPEND | (os.O_WRONLY if number else os.O_RDONLY))
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)
    speaks_at_once = os.isatty(1) or os.environ.get("PYTHONUNBUFFERED")
    sys.stdout = os.fdopen(1, "w", buffering=1 if speaks_at_once else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if program.cwd is not None:
        os.chdir(program.cwd)
    code = _code_of(program.argv)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def _code_of(argv: Sequence[str]) -> int:
    """Run it, and return the exit code that Python would end with."""
    try:
        _run(argv)
    except SystemExit as end:
        return _code_from(end.code)
    except BaseException as error:  # noqa: BLE001 (the edge of the process)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _run(argv: Sequence[str]) -> None:
    is_module = argv[0] == "-m"
    added = os.environ.get(_FOLDERS, "").split(os.pathsep)
    first = str(Path.cwd()) if is_module else str(Path(argv[0]).resolve().parent)
    sys.path[:] = [first, *filter(None, added), *filter(None, sys.path)]
    sys.argv = list(argv[is_module:])
    if is_module:
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(argv[0], run_name="__main__")


def _code_from(code: Any) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)  # noqa: T201
    return 1
