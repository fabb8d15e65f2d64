"""Rate of the bridge: it moves messages of the real Celery from Redis or RabbitMQ to dream's queue.

    python -m benchmarks.bridge --redis redis://127.0.0.1:6379/9 [--from amqp://127.0.0.1/] [--messages 10000] [--own]

A process with Celery sends the messages; then `dream bridge --drain` moves them, timed from its start to its end.
Without `--from` they come from the same Redis. With `--own` they are deletions, tasks of dream's own, and each becomes
a row; otherwise they are tasks of an app. The benchmark empties the database of the Redis URL before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pika
import redis

from dream.db import migrate
from dream.messages.registry import DELETE_IMAGES, IMAGES_QUEUE
from dream.work.messages import DEFAULT_QUEUE

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
QUEUE = "benchmark-bridge"
TARGET_S = 20.0
_SENDER = """
import json, sys
from celery import Celery

url, queue, messages, task, args = sys.argv[1:]
app = Celery(broker=url)
app.conf.task_default_queue = queue
with app.producer_pool.acquire() as producer:
    for number in range(int(messages)):
        app.send_task(task, json.loads(args), task_id=f"{number}", producer=producer)
"""


class Kind(NamedTuple):
    """The messages to send."""

    task: str
    args: list[Any]
    queue: str


_APPS = Kind("noop.kept", [], DEFAULT_QUEUE)
_PICTURE = {"id": 1, "url": "dreams/20260101/0123456789abcdef0123456789abcdef.jpg"}
_OWN = Kind(DELETE_IMAGES, [7, [_PICTURE], "owner"], IMAGES_QUEUE)


def main() -> None:
    """Run the benchmark and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--redis", required=True, help="dream's broker; the benchmark empties its database")
    parser.add_argument("--from", dest="source", help="Celery's broker; by default the same Redis")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--own", action="store_true", help="send tasks of dream's own, not an app's")
    arguments = parser.parse_args()
    source = arguments.source or arguments.redis
    with redis.Redis.from_url(arguments.redis) as client:
        client.flushdb()
        try:
            kind = _OWN if arguments.own else _APPS
            sender = [sys.executable, "-c", _SENDER, source, QUEUE, str(arguments.messages)]
            subprocess.run([*sender, kind.task, json.dumps(kind.args)], check=True)
            with tempfile.TemporaryDirectory(prefix="dream-bench-") as folder:
                took_s, said = _move(arguments.redis, source, f"sqlite:///{folder}/dream.db")
            moved = int(str(client.llen(f"dream:{kind.queue}")))
        finally:
            client.flushdb()
            _forget(source)
    print(said)
    rate = moved / took_s
    print(f"{moved} messages in {took_s:.1f} s, {rate:.0f} a second; 10,000 must take under {TARGET_S:.0f} s")
    sys.exit(moved != arguments.messages or rate < 10_000 / TARGET_S)


def _forget(source: str) -> None:
    if source.startswith("amqp"):
        with pika.BlockingConnection(pika.URLParameters(source)) as connection:
            channel = connection.channel()
            channel.queue_delete(QUEUE)
            channel.exchange_delete(QUEUE)


def _move(broker: str, source: str, database: str) -> tuple[float, str]:
    migrate.upgrade(database)
    environment = {**os.environ, "DREAM_BROKER_URL": broker, "DREAM_DATABASE_URL": database}
    command = ["-m", "dream", "bridge", "--from", source, "--queues", QUEUE, "--drain"]
    begun = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, *command, "-A", "benchmarks.noop.facade_app"],
        env=environment,
        cwd=HERE.parent,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return time.perf_counter() - begun, answer.stdout.strip()


if __name__ == "__main__":
    main()
