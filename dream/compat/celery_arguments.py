"""Celery's command line, read as dream's settings: what has a counterpart is translated, the rest is refused by name.

| of `celery worker` | here |
| --- | --- |
| `-c`, `--concurrency N` | `DREAM_WORKER_THREADS`; `auto` is the number of CPUs |
| `-Q`, `--queues A,B`; `-X`, `--exclude-queues A` | the queues that this worker takes from |
| `-P`, `--pool threads` | the only pool there is |
| `--time-limit S` | `DREAM_TIME_LIMIT_S` |
| `--soft-time-limit S` | the app's `task_soft_time_limit` |
| `-I`, `--include A,B` | modules that the worker imports |
| `-O`, `--optimization fair` | a thread takes a message when it is free, anyway |
| `-l`, `--loglevel L` (also of `celery beat`) | `DREAM_LOG_LEVEL` |
| `-b`, `--broker URL` (also of `celery beat`) | `DREAM_BROKER_URL` |
| `-A`, `--app shop` (also of `celery beat`) | an app whose tasks, or `beat_schedule`, run beside dream's |
| `--workdir FOLDER` (also of `celery beat`) | the folder to start in |
| `--result-backend redis://…` (also of `celery beat`) | `DREAM_REDIS_URL` |
| `-n`, `--hostname NAME` | `DREAM_WORKER_NAME`; of `celery beat`: without effect |
| `--no-enable-remote-control` of `celery beat` | there is none |
| `--skip-checks` (also of `celery beat`) | `CELERY_SKIP_CHECKS`: Django's system checks are not run |
| `--without-gossip`, `--without-mingle`, `--without-heartbeat`, `-q` | switch off what is not there |
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dream.compat.addresses import client_url
from dream.errors import InvalidArguments, SettingsError
from dream.messages import QUEUES
from dream.settings import load

__all__ = ["CommandLine", "Refused", "parse_beat", "parse_worker"]

_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "critical": "error",
    "fatal": "error",
}

_SERVICE_MANAGER = "leave that to the service manager"
_REFUSED_BY_BOTH = {
    ("-D", "--detach"): _SERVICE_MANAGER,
    ("--pidfile",): _SERVICE_MANAGER,
    ("--uid",): _SERVICE_MANAGER,
    ("--gid",): _SERVICE_MANAGER,
    ("--umask",): _SERVICE_MANAGER,
    ("--executable",): _SERVICE_MANAGER,
    ("-f", "--logfile"): "logs go to standard error; redirect it",
    ("-C", "--no-color"): "set DREAM_LOG_FORMAT=json",
    ("--config",): "set DREAM_… variables",
    ("--loader",): "set DREAM_… variables",
}
_REFUSED_BY_WORKER = {
    ("-B", "--beat"): "run `dream scheduler` beside the worker",
    ("-s", "--schedule-filename", "--schedule"): "the scheduler keeps its state in the database",
    ("-S", "--statedb"): "the worker keeps its state in the database",
    ("-E", "--task-events", "--events"): "there are no monitor events; the rows of dream_tasks tell",
    ("--scheduler",): "run `dream scheduler` beside the worker",
    ("--pool-start-method",): "tasks run in threads",
    ("--autoscale",): "set a fixed number with --concurrency",
    ("--max-tasks-per-child",): "threads are not replaced; a worker with a thread that is stuck is started again",
    ("--max-memory-per-child",): "set DREAM_CHILD_MEMORY_BYTES, a limit of each process that works on pictures",
    ("--prefetch-multiplier",): "it is fixed",
    ("--disable-prefetch",): "it is fixed",
    ("--heartbeat-interval",): "set DREAM_HEARTBEAT_S",
    ("--purge", "--discard"): "what was accepted is not thrown away",
}
_REFUSED_BY_BEAT = {
    ("-s", "--schedule"): "the scheduler keeps its state in the database",
    ("-S", "--scheduler"): "there is one scheduler",
    ("--max-interval",): "it wakes when something is due",
    ("--enable-remote-control",): "start and stop it with its service manager",
}


class Refused(SettingsError):
    """The command line asks for something that is not there."""


@dataclass(frozen=True)
class CommandLine:
    """What a command line asks for.

    Parameters:
      variables: the `DREAM_…` variables that it sets, and `CELERY_SKIP_CHECKS`.
      queues: the queues to take messages from, without prefix; None means all.
      app: whose tasks, or periodic tasks, run beside dream's; None means dream's alone.
      folder: where to start.
      include: modules to import.
      soft_time_limit_s: of the app's tasks that set none.
    """

    variables: dict[str, str]
    queues: frozenset[str] | None = None
    app: str | None = None
    folder: str | None = None
    include: tuple[str, ...] = ()
    soft_time_limit_s: float | None = None


def parse_worker(arguments: Sequence[str], *, has_app: bool = False) -> CommandLine:
    """Read the arguments of `celery worker`; the word `worker` itself may be among them.

    Parameters:
      has_app: an app is there that they need not name, and its queues.

    Raises:
      Refused: one line that names the option, why, and what to use.
    """
    parser = _parser("worker", _REFUSED_BY_WORKER)
    add = parser.add_argument
    add("-c", "--concurrency", type=_threads, metavar="N", help="tasks at a time; auto: as many as CPUs")
    add("-Q", "--queues", metavar="A,B", help="take messages from these queues only")
    add("-X", "--exclude-queues", metavar="A,B", help="take no messages from these queues")
    add("-P", "--pool", metavar="threads", help="threads, the only pool there is")
    add("-I", "--include", metavar="A,B", default="", help="import these modules")
    add("-O", "--optimization", choices=("fair", "default"), help="accepted: it is fair")
    add("--time-limit", type=float, metavar="S", help="time limit of a run, in seconds")
    add("--soft-time-limit", type=float, metavar="S", help="soft time limit of the app's tasks, in seconds")
    for option in ("--without-gossip", "--without-mingle", "--without-heartbeat"):
        add(option, action="store_true", help="accepted: there is none")
    given = _parse(parser, "worker", arguments)
    if given.pool not in (None, "threads"):
        raise Refused(f"--pool={given.pool}: tasks run in threads and pictures in processes; use --pool=threads")
    variables = {
        **_shared_variables(given),
        **_variable("DREAM_WORKER_THREADS", given.concurrency),
        **_variable("DREAM_TIME_LIMIT_S", given.time_limit),
        **_variable("DREAM_WORKER_NAME", _full_name(given.hostname)),
    }
    return CommandLine(
        variables,
        queues=_queues(given.queues, given.exclude_queues, has_app=has_app or given.app is not None),
        app=given.app,
        folder=given.workdir,
        include=tuple(_listed(given.include)),
        soft_time_limit_s=given.soft_time_limit,
    )


def parse_beat(arguments: Sequence[str]) -> CommandLine:
    """Read the arguments of `celery beat`; the word `beat` itself may be among them.

    Raises:
      Refused: one line that names the option, why, and what to use.
    """
    parser = _parser("beat", _REFUSED_BY_BEAT)
    parser.add_argument("--no-enable-remote-control", action="store_true", help="accepted: there is none")
    given = _parse(parser, "beat", arguments)
    return CommandLine(_shared_variables(given), app=given.app, folder=given.workdir)


# --- steps


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(message)


class _Refuse(argparse.Action):
    """An option that has no counterpart; `const` says why and what to use."""

    def __call__(self, _parser: object, _namespace: object, _values: object, option: str | None = None) -> None:
        raise Refused(f"{option} has no counterpart: {self.const}")


def _parser(command: str, refused: dict[tuple[str, ...], str]) -> _Parser:
    parser = _Parser(
        prog=f"python dream/celery/{command}.py",
        usage=f"%(prog)s [{command}] [options]",
        description=f"Celery's options of `celery {command}`, as far as they have a counterpart.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-A", "--app", metavar="APP", help="an app that runs beside dream's own")
    add("--workdir", metavar="FOLDER", help="the folder to start in")
    add("-b", "--broker", metavar="URL", help="where the broker is")
    add("--result-backend", metavar="URL", help="where results are kept: redis://…")
    add("-n", "--hostname", metavar="NAME", help="what the worker calls itself, as in w1@%%h")
    add("-l", "--loglevel", metavar="LEVEL", help=f"one of {', '.join(_LEVELS)}")
    add("--skip-checks", action="store_const", const="true", help="do not run Django's system checks")
    add("-q", "--quiet", action="store_true", help="accepted: there is no banner")
    for names, why in (_REFUSED_BY_BOTH | refused).items():
        add(*names, action=_Refuse, nargs="?", const=why, help=argparse.SUPPRESS)
    return parser


def _parse(parser: _Parser, command: str, arguments: Sequence[str]) -> argparse.Namespace:
    given, rest = parser.parse_known_args(arguments)
    if command in rest:
        rest.remove(command)
    if rest:
        raise Refused(f"{rest[0]} is not known; see --help")
    return given


def _shared_variables(given: argparse.Namespace) -> dict[str, str]:
    level = given.loglevel.lower() if given.loglevel is not None else None
    if level is not None and level not in _LEVELS:
        raise Refused(f"--loglevel={given.loglevel}: use one of {', '.join(_LEVELS)}")
    results = given.result_backend
    if results is not None and not results.startswith(("redis", "unix:", "socket:")):
        raise Refused(f"--result-backend={results}: results are kept in Redis; use redis://…")
    return {
        **_variable("CELERY_SKIP_CHECKS", given.skip_checks),
        **_variable("DREAM_LOG_LEVEL", _LEVELS.get(level or "")),
        **_variable("DREAM_BROKER_URL", _address(given.broker, "--broker")),
        **_variable("DREAM_REDIS_URL", _address(results, "--result-backend")),
    }


def _address(url: str | None, option: str) -> str | None:
    try:
        return None if url is None else client_url(url, option)
    except InvalidArguments as error:
        raise Refused(str(error)) from None


def _variable(name: str, value: Any) -> dict[str, str]:
    return {} if value is None else {name: str(value)}


def _full_name(name: str | None) -> str | None:
    """A worker's name has a host, this one's unless it says so."""
    return f"{name}@%h" if name and "@" not in name else name


def _threads(value: str) -> int:
    """A number of threads; argparse tells the name of this function's option when it raises."""
    number = len(os.sched_getaffinity(0)) if value == "auto" else int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few; use 1 or more")
    return number


def _queues(wanted: str | None, unwanted: str | None, *, has_app: bool) -> frozenset[str] | None:
    """The queues that are left; which an app has is known only once it is loaded."""
    if wanted is None and unwanted is None:
        return None
    queues = _names("--queues", wanted, has_app=has_app) if wanted is not None else frozenset(QUEUES)
    queues -= _names("--exclude-queues", unwanted or "", has_app=has_app)
    if not queues:
        raise Refused("no queue is left to take messages from")
    return queues


def _names(option: str, value: str, *, has_app: bool) -> frozenset[str]:
    names = frozenset(_listed(value))
    for name in sorted(names - set(QUEUES)) if not has_app and load().app is None else ():
        raise Refused(f"{option}={value}: there is no queue {name!r}; use {' or '.join(QUEUES)}, or name an --app")
    return names


def _listed(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
