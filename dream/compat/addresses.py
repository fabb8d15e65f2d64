"""Celery's `broker_url` in the words of our clients: what kombu reads differently, and what it knows and we do not.

Source: `kombu/utils/url.py` and `_connparams` in `kombu/transport/redis.py`.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from dream.errors import InvalidArguments

__all__ = ["client_url"]

#: The second is what results are called by.
_SOCKET = ("redis+socket", "socket")
#: Schemes of kombu's that mean one thing here.
_SAME = {"pyamqp": "amqp", "librabbitmq": "amqp"}
_KNOWN = ("redis", "rediss", "unix", "amqp", "amqps")


def client_url(url: str, where: str) -> str:
    """The URL by which redis-py or pika finds the server, and the database in it, that kombu finds.

    Parameters:
      where: what its giver calls it.

    Raises:
      InvalidArguments: it names no broker that there can be.
    """
    if ";" in url:
        raise InvalidArguments(f"{where} names several brokers: name one")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidArguments(f"{where} is no URL: {error}") from None
    scheme = _SAME.get(parts.scheme, parts.scheme)
    if scheme == "sentinel":
        raise InvalidArguments(f"{where} cannot ask sentinels: name the master itself, as in redis://HOST:PORT/0")
    if scheme in _SOCKET:
        return _socket_url(parts, where)
    if scheme not in _KNOWN:
        raise InvalidArguments(f"{where} must be redis://…, rediss://…, redis+socket://…, amqp://… or amqps://…")
    if scheme in ("redis", "rediss"):
        return _redis_url(parts, where)
    return f"{scheme}://{url.partition('://')[2] or 'localhost'}"


def _socket_url(parts: SplitResult, where: str) -> str:
    query = dict(parse_qsl(parts.query))
    database = query.pop("virtual_host", "0")
    return f"unix://{parts.netloc}{parts.path}?{urlencode({'db': _number(database, where), **query})}"


def _redis_url(parts: SplitResult, where: str) -> str:
    query = dict(parse_qsl(parts.query))
    if "ssl_cert_reqs" in query:  # by the names of Python's module, or of redis-py
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].removeprefix("CERT_").lower()
    database = _number(parts.path.strip("/") or "0", where)
    return urlunsplit(parts._replace(netloc=parts.netloc or "localhost", path=f"/{database}", query=urlencode(query)))


def _number(database: str, where: str) -> int:
    try:
        return int(database)
    except ValueError:
        raise InvalidArguments(f"{where}: a Redis database is a number, not {database!r}") from None
