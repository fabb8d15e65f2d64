"""Cost of the façade: plain Dramatiq, the façade and Celery send and run a task that does nothing.

    python -m benchmarks.facade --redis redis://127.0.0.1:6379/9 [--broker amqp://127.0.0.1/]

Each system has one worker process with four threads (Celery's `--pool=threads`, as documented) on the same broker: that
Redis, or the RabbitMQ that `--broker` names. Results are in the Redis. A round sends the tasks while the worker runs
and ends when its queue and its running tasks are done (in RabbitMQ, its queue). The systems take turns. The benchmark
prints medians of the rates and of each round's ratios. It empties the database of the Redis URL and deletes the queues.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pika
import redis

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
_THREADS = 4
_PATIENCE_S = 120.0
#: Targets: the lowest ratio of the first system's rate to the second's.
_TARGETS = {
    ("façade", "dramatiq"): 0.85,
    ("façade", "celery"): 3.0,
    ("façade, results", "celery, results"): 2.0,
}


class Rates(NamedTuple):
    """Tasks per second, in one round."""

    sent: float
    run: float


@dataclass(frozen=True)
class System:
    """One way to send and run a task.

    Parameters:
      name: its name in the table.
      module: the module of its task, in `benchmarks.noop`.
      worker: the command that runs its worker.
      task: the name of the task in the module.
      keys: keys in Redis that are empty when all tasks are done.
      queue: its queue in RabbitMQ.
    """

    name: str
    module: str
    worker: list[str]
    task: str
    keys: tuple[str, ...]
    queue: str


_CELERY = ["-m", "celery", "-A", "benchmarks.noop.celery_app", "worker", "--pool=threads", f"--concurrency={_THREADS}"]
_FACADE = [str(HERE.parent / "dream/celery/worker.py"), "-A", "benchmarks.noop.facade_app", f"--concurrency={_THREADS}"]
_DRAMATIQ = ["-m", "dramatiq", "benchmarks.noop.dramatiq_app", "-p", "1", "-t", str(_THREADS)]
_QUIET_CELERY = [*_CELERY, "--loglevel=error"]
_OF_DRAMATIQ = (("dramatiq:default.msgs", "dramatiq:default"), "default")
_OF_FACADE = (("bench:bench-default.msgs", "bench:bench-default"), "bench-default")
_OF_CELERY = (("celery", "unacked"), "celery")
SYSTEMS = (
    System("dramatiq", "dramatiq_app", _DRAMATIQ, "ignored", *_OF_DRAMATIQ),
    System("façade", "facade_app", _FACADE, "ignored", *_OF_FACADE),
    System("celery", "celery_app", _QUIET_CELERY, "ignored", *_OF_CELERY),
    System("façade, results", "facade_app", _FACADE, "kept", *_OF_FACADE),
    System("celery, results", "celery_app", _QUIET_CELERY, "kept", *_OF_CELERY),
)


@dataclass(frozen=True)
class Servers:
    """The servers of messages and results.

    Parameters:
      redis: for results, and for messages without another broker.
      broker: for messages.
    """

    redis: str
    broker: str

    def is_drained(self, system: System) -> bool:
        """Whether all tasks are done."""
        if self.broker == self.redis:
            with redis.Redis.from_url(self.redis) as client:
                kinds = {b"list": client.llen, b"hash": client.hlen, b"none": lambda _key: 0}
                return all(kinds[client.type(key)](key) == 0 for key in system.keys)  # type: ignore[index]
        with closing(pika.BlockingConnection(pika.URLParameters(self.broker))) as connection:
            return bool(connection.channel().queue_declare(system.queue, passive=True).method.message_count == 0)

    def clean(self) -> None:
        """Delete all keys and queues."""
        with redis.Redis.from_url(self.redis) as client:
            client.flushdb()
        if self.broker != self.redis:
            with closing(pika.BlockingConnection(pika.URLParameters(self.broker))) as connection:
                for name, end in product({each.queue for each in SYSTEMS}, ("", ".DQ", ".XQ")):
                    connection.channel().queue_delete(name + end)


def _environment(servers: Servers, folder: str) -> dict[str, str]:
    return {
        **os.environ,
        "NOOP_REDIS": servers.redis,
        "NOOP_BROKER": servers.broker,
        "PYTHONPATH": str(HERE.parent),
        "DREAM_BROKER_URL": servers.broker,
        "DREAM_REDIS_URL": servers.redis,
        "DREAM_REDIS_PREFIX": "bench",
        "DREAM_QUEUE_PREFIX": "bench-",
        "DREAM_DATABASE_URL": f"sqlite:///{folder}/dream.db",
        "DREAM_POOL_SIZE": "1",
        "DREAM_LOG_LEVEL": "error",
    }


@contextmanager
def _working(system: System, environment: dict[str, str], folder: str) -> Iterator[None]:
    with (Path(folder) / "worker.log").open("ab") as log:
        command = [sys.executable, *system.worker]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


def _wait(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"benchmarks.facade: {what} did not end within {_PATIENCE_S:g} s")
        time.sleep(0.01)


def _send(system: System, count: int, environment: dict[str, str], folder: str) -> float:
    """Send this many tasks from a process of its own; return the seconds that it took."""
    command = [sys.executable, "-m", f"benchmarks.noop.{system.module}", system.task, str(count)]
    sent = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return float(sent.stdout.split()[-1])


def _round(servers: Servers, system: System, count: int) -> Rates:
    servers.clean()
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(servers, folder)
        with _working(system, environment, folder):
            _send(system, 20, environment, folder)  # the worker is up when these are done
            _wait(lambda: servers.is_drained(system), f"the first tasks of {system.name}")
            sent_s = _send(system, count, environment, folder)
            begun = time.monotonic() - sent_s
            _wait(lambda: servers.is_drained(system), f"a round of {system.name}")
            return Rates(count / sent_s, count / (time.monotonic() - begun))


def _print(rounds: dict[str, list[Rates]]) -> bool:
    """Print the table; return whether all targets are met."""
    print("| system | sent /s | sent and run /s |\n| --- | --- | --- |")
    for name, rates in rounds.items():
        sent, run = (statistics.median(each) for each in zip(*rates, strict=True))
        print(f"| {name} | {sent:.0f} | {run:.0f} |")
    all_held = True
    for (ours, theirs), target in _TARGETS.items():
        ratios = sorted(one.run / other.run for one, other in zip(rounds[ours], rounds[theirs], strict=True))
        ratio = statistics.median(ratios)
        all_held = all_held and ratio >= target
        span = f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{ours} / {theirs}: {span}, wanted {target:g}: {'held' if ratio >= target else 'missed'}")
    return all_held


def main() -> int:
    """Measure, and print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", required=True, help="a Redis database, which the benchmark empties")
    parser.add_argument("--broker", help="a RabbitMQ, on which the benchmark deletes queues")
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    servers = Servers(given.redis, given.broker or given.redis)
    rounds: dict[str, list[Rates]] = {system.name: [] for system in SYSTEMS}
    for _ in range(given.rounds):
        for system in SYSTEMS:
            rounds[system.name].append(_round(servers, system, given.tasks))
    servers.clean()
    return 0 if _print(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
