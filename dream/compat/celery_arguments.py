"""Celery's command line, read as dream's settings: what has a counterpart is translated, the rest is refused by name.

| of `celery worker` | here |
| --- | --- |
| `-c`, `--concurrency N` | `DREAM_WORKER_THREADS` |
| `-Q`, `--queues A,B`; `-X`, `--exclude-queues A` | the queues that this worker takes from |
| `-P`, `--pool threads` | the only pool there is |
| `--time-limit S` | `DREAM_TIME_LIMIT_S` |
| `-l`, `--loglevel L` (also of `celery beat`) | `DREAM_LOG_LEVEL` |
| `-b`, `--broker URL` (also of `celery beat`) | `DREAM_BROKER_URL` |
| `-A`, `--app dream…` (also of `celery beat`) | the only app there is |
| `-n`, `--hostname NAME` | logged once; workers need no names |
| `--without-gossip`, `--without-mingle`, `--without-heartbeat`, `-q`, `--skip-checks` | switch off what is not there |
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dream.errors import SettingsError
from dream.messages import QUEUES

__all__ = ["Orders", "Refused", "parse_beat", "parse_worker"]

_LEVELS = ("debug", "info", "warning", "error")

_SERVICE_MANAGER = "leave that to the service manager"
_REFUSED_BY_BOTH = {
    ("-D", "--detach"): _SERVICE_MANAGER,
    ("--pidfile",): _SERVICE_MANAGER,
    ("--uid",): _SERVICE_MANAGER,
    ("--gid",): _SERVICE_MANAGER,
    ("--umask",): _SERVICE_MANAGER,
    ("--executable",): _SERVICE_MANAGER,
    ("--workdir",): "start it in that folder",
    ("-f", "--logfile"): "logs go to standard error; redirect it",
    ("-C", "--no-color"): "set DREAM_LOG_FORMAT=json",
    ("--config",): "set DREAM_… variables",
    ("--loader",): "set DREAM_… variables",
    ("--result-backend",): "results are in the database, DREAM_DATABASE_URL",
}
_REFUSED_BY_WORKER = {
    ("-B", "--beat"): "run dream/celery/beat.py (or `dream scheduler`) beside the worker",
    ("-s", "--schedule-filename", "--schedule"): "the scheduler keeps its state in the database",
    ("-S", "--statedb"): "the worker keeps its state in the database",
    ("-E", "--task-events"): "there are no monitor events; the rows of dream_tasks tell",
    ("-O", "--optimization"): "a thread takes a message when it is free, as with `-O fair`",
    ("-I", "--include"): "it runs dream's own tasks",
    ("--autoscale",): "set a fixed number with --concurrency",
    ("--soft-time-limit",): "use --time-limit",
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
}


class Refused(SettingsError):
    """The command line asks for something that is not there."""


@dataclass(frozen=True)
class Orders:
    """What a command line asks for.

    Parameters:
      variables: the `DREAM_…` variables that it sets.
      queues: the queues to take messages from, without prefix; None means all.
      name: what the worker is called.
    """

    variables: dict[str, str]
    queues: frozenset[str] | None = None
    name: str | None = None


def parse_worker(arguments: Sequence[str]) -> Orders:
    """Read the arguments of `celery worker`; the word `worker` itself may be among them.

    Raises:
      Refused: one line that names the option, why, and what to use.
    """
    parser = _parser("worker", _REFUSED_BY_WORKER)
    add = parser.add_argument
    add("-c", "--concurrency", type=int, metavar="N", help="tasks at a time")
    add("-Q", "--queues", metavar="A,B", help="take messages from these queues only")
    add("-X", "--exclude-queues", metavar="A,B", help="take no messages from these queues")
    add("-P", "--pool", metavar="threads", help="threads, the only pool there is")
    add("-n", "--hostname", metavar="NAME", help="logged once")
    add("--time-limit", type=float, metavar="S", help="time limit of a run, in seconds")
    for option in ("--without-gossip", "--without-mingle", "--without-heartbeat"):
        add(option, action="store_true", help="accepted: there is none")
    given = _parse(parser, "worker", arguments)
    if given.pool not in (None, "threads"):
        raise Refused(f"--pool={given.pool}: tasks run in threads and pictures in processes; use --pool=threads")
    if given.concurrency is not None and given.concurrency < 1:
        raise Refused(f"--concurrency={given.concurrency}: use 1 or more")
    variables = {
        **_shared_variables(given),
        **_variable("DREAM_WORKER_THREADS", given.concurrency),
        **_variable("DREAM_TIME_LIMIT_S", given.time_limit),
    }
    return Orders(variables, _queues(given.queues, given.exclude_queues), given.hostname)


def parse_beat(arguments: Sequence[str]) -> Orders:
    """Read the arguments of `celery beat`; the word `beat` itself may be among them.

    Raises:
      Refused: one line that names the option, why, and what to use.
    """
    return Orders(_shared_variables(_parse(_parser("beat", _REFUSED_BY_BEAT), "beat", arguments)))


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
    add("-A", "--app", metavar="dream", help="dream, the only app there is")
    add("-b", "--broker", metavar="URL", help="where the broker is")
    add("-l", "--loglevel", metavar="LEVEL", help=f"one of {', '.join(_LEVELS)}")
    add("-q", "--quiet", "--skip-checks", action="store_true", help="accepted: there is nothing to leave out")
    for names, why in (_REFUSED_BY_BOTH | refused).items():
        add(*names, action=_Refuse, nargs="?", const=why, help=argparse.SUPPRESS)
    return parser


def _parse(parser: _Parser, command: str, arguments: Sequence[str]) -> argparse.Namespace:
    given, rest = parser.parse_known_args(arguments)
    if command in rest:
        rest.remove(command)
    if rest:
        raise Refused(f"{rest[0]} is not known; see --help")
    if given.app is not None and given.app.split(".")[0].split(":")[0] != "dream":
        raise Refused(f"--app={given.app}: this runs dream's own tasks; leave it out")
    return given


def _shared_variables(given: argparse.Namespace) -> dict[str, str]:
    level = given.loglevel.lower() if given.loglevel is not None else None
    if level is not None and level not in _LEVELS:
        raise Refused(f"--loglevel={given.loglevel}: use one of {', '.join(_LEVELS)}")
    return {**_variable("DREAM_LOG_LEVEL", level), **_variable("DREAM_BROKER_URL", given.broker)}


def _variable(name: str, value: Any) -> dict[str, str]:
    return {} if value is None else {name: str(value)}


def _queues(wanted: str | None, unwanted: str | None) -> frozenset[str] | None:
    if wanted is None and unwanted is None:
        return None
    queues = _names("--queues", wanted) if wanted is not None else frozenset(QUEUES)
    queues -= _names("--exclude-queues", unwanted or "")
    if not queues:
        raise Refused("no queue is left to take messages from")
    return queues


def _names(option: str, value: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in value.split(",") if name.strip())
    for name in sorted(names - set(QUEUES)):
        raise Refused(f"{option}={value}: there is no queue {name!r}; use {' or '.join(QUEUES)}")
    return names
