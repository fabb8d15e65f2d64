"""What of an app's configuration sets dream's own settings, where no `DREAM_…` variable does.

| the app's | ours |
| --- | --- |
| `broker_url` | `DREAM_BROKER_URL` |
| `result_backend` in Redis | `DREAM_REDIS_URL`, unless the environment names the broker |
| `result_expires` | `DREAM_RESULT_TTL_S` |
| `worker_concurrency` | `DREAM_WORKER_THREADS` |

Redis has the events of pictures, too: where the environment names servers, the gateway looks for them there.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dream.compat.addresses import client_url
from dream.compat.conf import Conf
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["adopt", "results_elsewhere", "settings_of"]

_REDIS = ("redis://", "rediss://", "unix://", "redis+socket://", "socket://")

#: Decides which of several apps that are first used at the same time sets the process's settings.
_first = threading.Lock()


def adopt(conf: Conf) -> Settings:
    """The settings of this process, in which what the app is set to stands in for what is not set.

    Raises:
      ImproperlyConfigured, SettingsError: a value is wrong.
    """
    from dream import settings

    settings.default_to(**_adopted(conf))
    return settings.load()


def settings_of(conf: Conf) -> Settings:
    """The settings of an app: the process's, unless another app has set these.

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
    """The app's settings under our names."""
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
    """In our clients' words; what is no address of theirs is left to the settings, which say so where they need it."""
    try:
        return client_url(url, name) if isinstance(url, str) else url
    except InvalidArguments:
        return url


def results_elsewhere(conf: Conf) -> str | None:
    """The app's `result_backend` without its password, where it is another Redis than the one that keeps results.

    Callers that still look there would wait for ever, and nothing else would say so.
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
    """What tells one Redis from another: where it listens, and which of its databases."""
    parts = urlsplit(url)
    host = parts.hostname or "localhost"
    return "127.0.0.1" if host == "localhost" else host, parts.port or 6379, parts.path.strip("/") or "0"


def _seconds(expires: Any) -> int:
    """Celery's None is for ever, and so is our 0."""
    return int(expires.total_seconds()) if isinstance(expires, timedelta) else int(expires or 0)
