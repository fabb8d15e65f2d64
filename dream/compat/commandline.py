"""Celery's command lines: `celery worker` and `celery beat` become `dream worker` and `dream scheduler`.

Options with a counterpart are translated to dream's settings; the others are refused by name.

| of `celery worker` | here |
| --- | --- |
| `-c`, `--concurrency N` | `DREAM_WORKER_THREADS`; `auto` is the number of CPUs |
| `-Q`, `--queues A,B`; `-X`, `--exclude-queues A` | the queues that this worker takes from |
| `-P`, `--pool threads` | the only pool |
| `--time-limit S` | `DREAM_TIME_LIMIT_S` |
| `--soft-time-limit S` | the app's `task_soft_time_limit` |
| `-I`, `--include A,B` | modules that the worker imports |
| `-O`, `--optimization fair` | without effect: a thread always takes a message when it is free |
| `-l`, `--loglevel L` (also of `celery beat`) | `DREAM_LOG_LEVEL` |
| `-b`, `--broker URL` (also of `celery beat`) | `DREAM_BROKER_URL` |
| `-A`, `--app shop` (also of `celery beat`) | an app whose tasks, or `beat_schedule`, run beside dream's |
| `--workdir FOLDER` (also of `celery beat`) | the folder to start in |
| `--result-backend redis://…` (also of `celery beat`) | `DREAM_REDIS_URL` |
| `-n`, `--hostname NAME` | `DREAM_WORKER_NAME`; of `celery beat`: without effect |
| `--no-enable-remote-control` of `celery beat` | without effect: there is none |
| `--skip-checks` (also of `celery beat`) | `CELERY_SKIP_CHECKS`: Django's system checks are not run |
| `--without-gossip`, `--without-mingle`, `--without-heartbeat`, `-q` | without effect: dream has none of these |
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat.adoption import adopt, client_url, results_elsewhere
from dream.compat.host import host
from dream.errors import InvalidArguments, SettingsError
from dream.settings import load
from dream.work.process import exit_code

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.settings import Settings

__all__ = [
    "CommandLine",
    "Refused",
    "beat",
    "keep_time",
    "parse_beat",
    "parse_worker",
    "work",
    "worker",
]

#: Seconds that a worker needs to end after its runs are requeued.
_LEAVE_S = 1.0


def worker(arguments: Sequence[str], app: Celery | None = None) -> int:
    """Work until a signal; returns the exit code.

    Parameters:
      app: the app whose tasks run beside dream's; by default the arguments name it.
    """
    return exit_code(lambda: work(parse_worker(arguments, has_app=app is not None), app))


def beat(arguments: Sequence[str], app: Celery | None = None) -> int:
    """Run the scheduler until a signal; returns the exit code."""
    return exit_code(lambda: _keep_time(parse_beat(arguments), app))


def work(line: CommandLine, app: Celery | None = None) -> int:
    """Run dream's own tasks, and an app's, until a signal; returns the exit code."""
    settings = _configure(line)
    from dream.work.respawn import keep_running

    def once() -> int:
        # Runs in the working process, and again in each process that replaces it.
        from dream.compat.finding import finalize

        used = _load_app(line, app)
        finalize(used)
        adopted = adopt(used.conf)
        _warn_of_results(used, adopted)
        from dream.compat.worker.actors import register

        worker = host().worker(used)
        register(used, worker, line.queues or ())
        return worker.run(queues=line.queues or ())

    return keep_running(lambda: exit_code(once), stop_timeout_s=settings.shutdown_timeout_s + _LEAVE_S)


def _warn_of_results(app: Celery, settings: Settings) -> None:
    from dream.log import get_logger

    if (backend := results_elsewhere(app.conf)) is not None:
        get_logger(__name__).warning(
            "results_kept_elsewhere",
            result_backend=backend,
            kept_in=settings.events_url,
            do="set DREAM_REDIS_URL to the result_backend of those who wait for results",
        )


def _keep_time(line: CommandLine, app: Celery | None) -> int:
    _configure(line)
    return keep_time(_load_app(line, app))


def keep_time(app: Celery) -> int:
    """Run dream's timetable, and an app's, until a signal; returns the exit code."""
    from dream.compat import signals
    from dream.compat.finding import finalize
    from dream.compat.periodic import periodic_tasks

    finalize(app)
    signals.beat_init.send(app)
    return host().keep_time(adopt(app.conf), periodic_tasks(app))


def _load_app(line: CommandLine, app: Celery | None = None) -> Celery:
    """The app whose tasks run beside dream's, or dream's own app."""
    from dream.compat.finding import find_app, look_here

    app = app or find_app(line.app)
    if line.include:
        look_here()
        app.conf.include = (*app.conf.include, *line.include)
    if line.soft_time_limit_s is not None:
        app.conf.task_soft_time_limit = line.soft_time_limit_s
    return app


def _configure(line: CommandLine) -> Settings:
    """The settings, changed by the command line, with logging set up."""
    from dream import log
    from dream.settings import load

    if line.folder is not None:
        os.chdir(line.folder)
    # Into the environment, so that they are read once, in one place, and by child processes too.
    os.environ.update(line.variables)
    load.cache_clear()
    settings = load()
    log.configure(settings)
    return settings


# --- options


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
    """The command line asks for a feature that dream lacks."""


@dataclass(frozen=True)
class CommandLine:
    """The requests of a command line.

    Parameters:
      variables: the `DREAM_…` variables that it sets, and `CELERY_SKIP_CHECKS`.
      queues: the queues to take messages from, without prefix; None means all.
      app: the app whose tasks, or periodic tasks, run beside dream's; None means dream's alone.
      folder: the folder to start in.
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
      has_app: an app is given, so that they need not name one; queues may be its.

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
    """An option without a counterpart; `const` is the reason and the replacement."""

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
    if results is not None and not results.startswith(("redis", "sentinel", "unix:", "socket:")):
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
    """A worker's name with a host: this host, unless the name has one."""
    return f"{name}@%h" if name and "@" not in name else name


def _threads(value: str) -> int:
    """The number of threads; argparse adds the option's name to an error."""
    number = len(os.sched_getaffinity(0)) if value == "auto" else int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is too few; use 1 or more")
    return number


def _queues(wanted: str | None, unwanted: str | None, *, has_app: bool) -> frozenset[str] | None:
    """The queues to take messages from; None means all, because an app's are known only after it is loaded."""
    if wanted is None and unwanted is None:
        return None
    queues = _names("--queues", wanted, has_app=has_app) if wanted is not None else frozenset(host().queues)
    queues -= _names("--exclude-queues", unwanted or "", has_app=has_app)
    if not queues:
        raise Refused("no queue is left to take messages from")
    return queues


def _names(option: str, value: str, *, has_app: bool) -> frozenset[str]:
    names, known = frozenset(_listed(value)), host().queues
    for name in sorted(names - set(known)) if not has_app and load().app is None else ():
        raise Refused(f"{option}={value}: there is no queue {name!r}; use {' or '.join(known)}, or name an --app")
    return names


def _listed(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
