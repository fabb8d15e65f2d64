"""What the façade costs: a task that does nothing, sent and run by plain Dramatiq, by the façade and by Celery.

    python -m benchmarks.facade --redis redis://127.0.0.1:6379/9 [--tasks 4000] [--rounds 3]

Each system has one worker process with four threads (Celery's `--pool=threads`, as documented) on the same Redis. A
round sends the tasks while the worker runs and ends when its queue and what is in work are empty; the systems take
turns, and the best round of each counts. The database of that URL is emptied.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
_THREADS = 4
_PATIENCE_S = 120.0
#: What is wanted: of whose rate, and how much of it.
_TARGETS = {
    ("façade", "dramatiq"): 0.85,
    ("façade", "celery"): 3.0,
    ("façade, results", "celery, results"): 2.0,
}


@dataclass(frozen=True)
class System:
    """One way to send and run a task.

    Parameters:
      name: what the table calls it.
      module: in `benchmarks.noop`, where its task is.
      worker: the command that runs its worker.
      task: which of the module's.
      queues: the keys that are empty when all is done.
    """

    name: str
    module: str
    worker: list[str]
    task: str
    queues: tuple[str, ...]


_CELERY = ["-m", "celery", "-A", "benchmarks.noop.celery_app", "worker", "--pool=threads", f"--concurrency={_THREADS}"]
_FACADE = [str(HERE.parent / "dream/celery/worker.py"), "-A", "benchmarks.noop.facade_app", f"--concurrency={_THREADS}"]
_DRAMATIQ = ["-m", "dramatiq", "benchmarks.noop.dramatiq_app", "-p", "1", "-t", str(_THREADS)]
SYSTEMS = (
    System("dramatiq", "dramatiq_app", _DRAMATIQ, "ignored", ("dramatiq:default.msgs", "dramatiq:default")),
    System("façade", "facade_app", _FACADE, "ignored", ("bench:default.msgs", "bench:default")),
    System("celery", "celery_app", [*_CELERY, "--loglevel=error"], "ignored", ("celery", "unacked")),
    System("façade, results", "facade_app", _FACADE, "kept", ("bench:default.msgs", "bench:default")),
    System("celery, results", "celery_app", [*_CELERY, "--loglevel=error"], "kept", ("celery", "unacked")),
)


def _environment(url: str, folder: str) -> dict[str, str]:
    return {
        **os.environ,
        "NOOP_REDIS": url,
        "PYTHONPATH": str(HERE.parent),
        "DREAM_BROKER_URL": url,
        "DREAM_REDIS_PREFIX": "bench",
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


def _drained(client: redis.Redis, system: System) -> bool:
    kinds = {b"list": client.llen, b"hash": client.hlen, b"none": lambda _key: 0}
    return all(kinds[client.type(key)](key) == 0 for key in system.queues)  # type: ignore[index]


def _wait(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"benchmarks.facade: {what} did not end within {_PATIENCE_S:g} s")
        time.sleep(0.01)


def _send(system: System, count: int, environment: dict[str, str], folder: str) -> float:
    """Send that many in a process of its own; seconds that the sending took."""
    command = [sys.executable, "-m", f"benchmarks.noop.{system.module}", system.task, str(count)]
    sent = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return float(sent.stdout.split()[-1])


def _round(client: redis.Redis, system: System, count: int, url: str) -> tuple[float, float]:
    """Tasks a second: sent, and sent and run."""
    client.flushdb()
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(url, folder)
        with _working(system, environment, folder):
            _send(system, 20, environment, folder)  # the worker is up when these are done
            _wait(lambda: _drained(client, system), f"the first tasks of {system.name}")
            sent_s = _send(system, count, environment, folder)
            begun = time.monotonic() - sent_s
            _wait(lambda: _drained(client, system), f"a round of {system.name}")
            return count / sent_s, count / (time.monotonic() - begun)


def main() -> int:
    """Measure, and print the table; returns 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", required=True, help="a Redis database that may be emptied")
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    client = redis.Redis.from_url(given.redis)
    best = {system.name: (0.0, 0.0) for system in SYSTEMS}
    for _ in range(given.rounds):
        for system in SYSTEMS:
            found = _round(client, system, given.tasks, given.redis)
            best[system.name] = max(best[system.name], found, key=lambda rates: rates[1])
    client.flushdb()
    print("| system | sent /s | sent and run /s |\n| --- | --- | --- |")
    for name, (sent, run) in best.items():
        print(f"| {name} | {sent:.0f} | {run:.0f} |")
    missed = 0
    for (ours, theirs), target in _TARGETS.items():
        ratio = best[ours][1] / best[theirs][1]
        missed += ratio < target
        print(f"{ours} / {theirs}: {ratio:.2f}, wanted {target:g}: {'missed' if ratio < target else 'held'}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
