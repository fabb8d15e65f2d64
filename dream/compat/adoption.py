"""Settings of dream's that an app's configuration provides, unless a `DREAM_…` variable is set.

| the app's | dream's |
| --- | --- |
| `broker_url` | `DREAM_BROKER_URL` |
| `result_backend` in Redis | `DREAM_REDIS_URL`, unless the environment names the broker |
| `result_expires` | `DREAM_RESULT_TTL_S` |
| `worker_concurrency` | `DREAM_WORKER_THREADS` |

Redis has the events of pictures, too. If the environment names servers, the gateway looks for the events there.

Celery's addresses are kombu's; `client_url` translates them (source: `kombu/utils/url.py`, and `_connparams` in
`kombu/transport/redis.py`).
"""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from dream.compat.conf import Conf
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "adopt",
    "client_url",
    "results_elsewhere",
    "settings_of",
]

_REDIS = ("redis://", "rediss://", "sentinel://", "sentinels://", "unix://", "redis+socket://", "socket://")

#: Lets one app set the process's settings, if several are first used at the same time.
_first = threading.Lock()


def adopt(conf: Conf) -> Settings:
    """The settings of this process; the app's settings are defaults for variables that are not set.

    Raises:
      ImproperlyConfigured, SettingsError: a value is wrong.
    """
    from dream import settings

    settings.default_to(**_adopted(conf))
    return settings.load()


def settings_of(conf: Conf) -> Settings:
    """The settings of an app: the process's, unless another app has filled these in.

    Raises:
      ImproperlyConfigured, SettingsError: a value is wrong.
    """
    from dream import settings

    wanted = _adopted(conf)
    if not wanted:
        return settings.load()
    with _first:
        if not settings.is_defaulted():
            settings.default_to(**wanted)
            return settings.load()
    return _settings_with(settings.load(), tuple((name, str(value)) for name, value in wanted.items()))


@lru_cache(maxsize=32)
def _settings_with(process: Settings, wanted: tuple[tuple[str, str], ...]) -> Settings:
    from dream import settings

    values = dict(wanted)
    found = settings.with_defaults(alone="broker_url" in values, **values)
    return process if found == process else found


def _adopted(conf: Conf) -> dict[str, Any]:
    """The app's settings under dream's names."""
    from dream import settings

    given = {name: conf[name] for name in ("broker_url", "worker_concurrency", "result_backend") if conf.is_set(name)}
    adopted = {
        "broker_url": _address(given.get("broker_url"), "broker_url"),
        "worker_threads": given.get("worker_concurrency"),
        "result_ttl_s": _seconds(conf.result_expires) if conf.is_set("result_expires") else None,
    }
    results = given.get("result_backend")
    if isinstance(results, str) and results.startswith(_REDIS) and "broker_url" not in settings.set_by_environment():
        adopted["redis_url"] = _address(results, "result_backend")
    return {name: value for name, value in adopted.items() if value is not None}


def _address(url: Any, name: str) -> Any:
    """The address for dream's clients. A wrong one is returned as it is: the settings refuse it when they need it."""
    try:
        return client_url(url, name) if isinstance(url, str) else url
    except InvalidArguments:
        return url


def results_elsewhere(conf: Conf) -> str | None:
    """The app's `result_backend`, without its password, if dream keeps results in another Redis; else None.

    Callers that look for results there would wait for ever, without an error.
    """
    from dream import settings
    from dream.log import redact

    backend = conf.result_backend if conf.is_set("result_backend") else None
    if not isinstance(backend, str) or not backend.startswith(_REDIS):
        return None
    return (
        redact(backend) if _place(_address(backend, "result_backend")) != _place(settings.load().events_url) else None
    )


def _place(url: str) -> tuple[object, ...]:
    """The host, the port and the database of a Redis; the sentinels, the service and the database."""
    if url.partition("://")[0] in _SENTINELS:
        from dream.settings.sentinel import SentinelUrl

        found = SentinelUrl.parse(url)
        return frozenset(found.hosts), found.service, urlsplit(found.master).path
    parts = urlsplit(url)
    host = parts.hostname or "localhost"
    return "127.0.0.1" if host == "localhost" else host, parts.port or 6379, parts.path.strip("/") or "0"


def _seconds(expires: Any) -> int:
    """The seconds of `result_expires`; Celery's None and dream's 0 mean for ever."""
    return int(expires.total_seconds()) if isinstance(expires, timedelta) else int(expires or 0)


# --- addresses


#: The second is the scheme of `result_backend`.
_SOCKET = ("redis+socket", "socket")
_SENTINELS = ("sentinel", "sentinels")
#: kombu's names of one scheme.
_SAME = {"pyamqp": "amqp", "librabbitmq": "amqp"}
_KNOWN = ("redis", "rediss", "unix", "amqp", "amqps")


def client_url(url: str, where: str) -> str:
    """The URL with which redis-py or pika finds the server and the database that kombu finds.

    Parameters:
      where: the name of the setting or option with the URL, for errors.

    Raises:
      InvalidArguments: dream has no such broker.
    """
    if url.partition("://")[0] in _SENTINELS:
        return _sentinel_url(url, where)
    if ";" in url:
        raise InvalidArguments(f"{where} names several brokers: name one")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidArguments(f"{where} is no URL: {error}") from None
    scheme = _SAME.get(parts.scheme, parts.scheme)
    if scheme in _SOCKET:
        return _socket_url(parts, where)
    if scheme not in _KNOWN:
        raise InvalidArguments(
            f"{where} must be redis://…, rediss://…, sentinel://…, redis+socket://…, amqp://… or amqps://…"
        )
    if scheme in ("redis", "rediss"):
        return _redis_url(parts, where)
    return f"{scheme}://{url.partition('://')[2] or 'localhost'}"


def _sentinel_url(url: str, where: str) -> str:
    from dream.settings.sentinel import SentinelUrl

    if ";" in url:  # kombu's form has the service in an option of its own
        raise InvalidArguments(
            f"{where} must name all sentinels and the service: sentinel://HOST:PORT,HOST:PORT/SERVICE/0"
        )
    try:
        SentinelUrl.parse(url)
    except ValueError as error:
        raise InvalidArguments(f"{where}: {error}") from None
    return url


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
