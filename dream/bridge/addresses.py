"""Celery's `broker_url` in the words of our clients: what kombu reads differently, and what it knows and we do not.

Source: `kombu/utils/url.py` and `_connparams` in `kombu/transport/redis.py`.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from dream.errors import InvalidArguments

__all__ = ["client_url"]

_SOCKET = "redis+socket"
#: Schemes of kombu's that mean one thing here.
_SAME = {"pyamqp": "amqp", "librabbitmq": "amqp"}
_KNOWN = ("redis", "rediss", "unix", "amqp", "amqps")


def client_url(url: str) -> str:
    """The URL by which redis-py or pika finds the server, and the database in it, that kombu finds.

    Raises:
      InvalidArguments: it names no broker that can be read from.
    """
    if ";" in url:
        raise InvalidArguments("--from names several brokers: name the one that has the messages")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidArguments(f"--from is no URL: {error}") from None
    scheme = _SAME.get(parts.scheme, parts.scheme)
    if scheme == "sentinel":
        raise InvalidArguments("--from cannot ask sentinels: name the master itself, as in redis://HOST:PORT/0")
    if scheme == _SOCKET:
        return _socket_url(parts)
    if scheme not in _KNOWN:
        raise InvalidArguments("--from must be redis://…, rediss://…, redis+socket://…, amqp://… or amqps://…")
    if scheme in ("redis", "rediss"):
        return _redis_url(parts)
    return f"{scheme}://{url.partition('://')[2]}"


def _socket_url(parts: SplitResult) -> str:
    query = dict(parse_qsl(parts.query))
    database = query.pop("virtual_host", "0")
    return f"unix://{parts.netloc}{parts.path}?{urlencode({'db': _number(database), **query})}"


def _redis_url(parts: SplitResult) -> str:
    query = dict(parse_qsl(parts.query))
    if "ssl_cert_reqs" in query:  # by the names of Python's module, or of redis-py
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].removeprefix("CERT_").lower()
    database = _number(parts.path.strip("/") or "0")
    return urlunsplit(parts._replace(path=f"/{database}", query=urlencode(query)))


def _number(database: str) -> int:
    try:
        return int(database)
    except ValueError:
        raise InvalidArguments(f"--from: a Redis database is a number, not {database!r}") from None
