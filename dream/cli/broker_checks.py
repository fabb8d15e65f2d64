"""The checks of `dream doctor` that look at Redis and RabbitMQ, and at the workers that answer there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import redis

from dream.cli.findings import Check, Finding, right, warning, wrong
from dream.errors import BrokerUnavailable, SettingsError
from dream.messages import QUEUES
from dream.middleware.asking import ask
from dream.presence import NO_CLUSTER, is_cluster, parts_there
from dream.questions import Question
from dream.redis_client import connect
from dream.server_words import sentence_of

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["broker_checks", "is_too_old", "redis_clock_s"]

#: Idle workers wait with BLMOVE, which no older server has.
_OLDEST_REDIS = (6, 2)
#: Workers that are there answer within milliseconds.
_ANSWER_S = 2.0
#: What a broker's Redis must be set to, and what to do where it is not.
_WANTED = {
    "appendonly": (
        "yes",
        "a restart of Redis would lose messages",
        "set `appendonly yes` in redis.conf (at once: CONFIG SET appendonly yes)",
    ),
    "maxmemory-policy": (
        "noeviction",
        "a full Redis would drop messages",
        "set `maxmemory-policy noeviction` in redis.conf (at once: CONFIG SET maxmemory-policy noeviction)",
    ),
}


def broker_checks(settings: Settings) -> list[Check]:
    """The broker, its settings and queues, the Redis of the events, and the workers that are asked through it."""
    advice = "look at DREAM_BROKER_URL and at the server"
    events_advice = "look at DREAM_REDIS_URL and at the server"
    if settings.is_redis_broker:
        checks = [
            Check("broker", partial(_redis, settings.broker_url), advice),
            Check("broker's settings", partial(_redis_settings, settings.broker_url), advice, needs=["broker"]),
        ]
    else:
        checks = [
            Check("broker", partial(_rabbitmq, settings.broker_url), advice),
            Check("broker's queues", partial(_queues, settings), advice, needs=["broker"]),
        ]
    if settings.redis_url is None:
        checks.append(Check("events", _same_as_broker, events_advice, needs=["broker"]))
    else:
        checks.append(Check("events", partial(_redis, settings.redis_url), events_advice))
    return [
        *checks,
        Check("workers", partial(_workers, settings), events_advice, needs=["events"]),
        Check("scheduler and gateway", partial(_parts, settings), events_advice, needs=["events"]),
    ]


def _same_as_broker() -> Iterator[Finding]:
    yield right("they go through the broker's Redis")


# --- Redis


def _redis(url: str) -> Iterator[Finding]:
    with closing(connect(url)) as client:
        try:
            about: dict[str, Any] = client.info("server")
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis at {url}: {sentence_of(error)}") from error
    if is_cluster(about):
        yield wrong(f"{url} is a node of a Redis Cluster, and every part refuses to start on it", NO_CLUSTER)
        return
    name = "Valkey" if about.get("server_name") == "valkey" else "Redis"
    version = str(about.get("valkey_version") or about.get("redis_version") or "of unknown version")
    if is_too_old(version):
        yield wrong(f"{name} {version} answers, but is too old", f"use {'.'.join(map(str, _OLDEST_REDIS))} or newer")
    else:
        yield right(f"{name} {version} answers at {url}")


def is_too_old(version: str) -> bool:
    """Whether a server of this version lacks a command that dream uses; one that names no version is trusted."""
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return () < numbers < _OLDEST_REDIS


def _redis_settings(url: str) -> Iterator[Finding]:
    with closing(connect(url)) as client:
        try:
            found: dict[Any, Any] = client.config_get(*_WANTED)
        except redis.ResponseError as error:
            yield warning(
                f"this server does not show its settings, as managed ones do not ({str(error).split(',')[0]})",
                "see in its console that it persists every write and evicts nothing",
            )
            return
    for name, (wanted, danger, advice) in _WANTED.items():
        value = found.get(name)
        if value == wanted:
            yield right(f"{name} {value}")
        else:
            yield wrong(f"{name} is {value}, not {wanted}: {danger}", advice)


def redis_clock_s(url: str) -> float:
    """What time it is for Redis, in seconds since the epoch."""
    with closing(connect(url)) as client:
        seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1_000_000


# --- workers


def _workers(settings: Settings) -> Iterator[Finding]:
    """None is no fault, for one may be about to start; but whoever waits for a task wants to know."""
    answers = ask(settings, Question(command="active_queues"), timeout_s=_ANSWER_S).by_worker
    taken = {name: sorted(queue["name"] for queue in queues) for name, queues in answers.items()}
    for name, queues in sorted(taken.items()):
        yield right(f"{name} takes {', '.join(queues)}")
    if missing := sorted(set(QUEUES).difference(*taken.values())):
        said = f"none takes {' or '.join(missing)}" if taken else "none answers"
        yield warning(f"{said}: what is sent there waits", "start `dream worker`")


def _parts(settings: Settings) -> Iterator[Finding]:
    """A missing part is only a warning: it may be about to start, or of an older release, which does not register."""
    there = parts_there(settings)
    without = {
        "scheduler": "nobody sends again what is lost, cleans up, or runs what is periodic",
        "gateway": "no page is served, and no picture unless DREAM_PUBLIC_URL is set",
    }
    for part, lacks in without.items():
        if names := there.get(part):
            yield right(f"{part}: {', '.join(names)}")
        else:
            yield warning(f"no {part} is there: {lacks}", f"start `dream {part}`")


# --- RabbitMQ


def _rabbitmq(url: str) -> Iterator[Finding]:
    import pika

    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except (pika.exceptions.AMQPError, OSError) as error:
        raise BrokerUnavailable(f"RabbitMQ at {url}: {sentence_of(error)}") from error
    yield right(f"RabbitMQ answers at {url}")


def _queues(settings: Settings) -> Iterator[Finding]:
    from dream.broker.rabbitmq import RabbitmqBroker

    names = [settings.queue_prefix + queue for queue in QUEUES]
    with closing(RabbitmqBroker(url=settings.broker_url, middleware=[])) as broker:
        try:
            for name in names:
                broker.declare_queue(name, ensure=True)
        except SettingsError as error:
            yield wrong(str(error), "set DREAM_QUEUE_PREFIX, the same for every process of dream")
            return
    yield right(f"the queues {' and '.join(names)} are declared")
